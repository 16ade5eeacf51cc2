"""Processes whose entropies and beliefs are known exactly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from worldmodel.envs.worlds.hmm import HMM


def mess3(x: float = 0.05, a: float = 0.85) -> HMM:
    """Return Mess3: three hidden states in a ring, whose token names the new state with probability a.

    A state changes to each other one with probability x. Its beliefs are a fractal (Marzen & Crutchfield 2017, arXiv
    1702.08565; Shai et al. 2024, arXiv 2405.15943).
    """
    return HMM(_mess3(x, a)[None])


def mess3_actions(x: float = 0.05, a: float = 0.85) -> HMM:
    """Return Mess3 with three actions, which first rotate the hidden state by 0, 1 or 2 places.

    The process is invariant under a joint rotation of states and tokens. So a predictor that receives the actions has
    the cross-entropies of plain Mess3, whatever the policy; one that does not receive them has log 3.
    """
    turns = [np.roll(np.eye(3), k, axis=1) for k in range(3)]  # state i becomes i + k
    return HMM(np.stack([np.einsum("ij,xjk->xik", turn, _mess3(x, a)) for turn in turns]))


def golden_mean() -> HMM:
    """Return coin tosses in which no two zeros follow each other."""
    tensor = np.zeros((1, 2, 2, 2))
    tensor[0, 1, 0, 0] = tensor[0, 0, 0, 1] = 0.5
    tensor[0, 1, 1, 0] = 1.0
    return HMM(tensor)


def even() -> HMM:
    """Return coin tosses in which ones come in runs of even length: of infinite Markov order."""
    tensor = np.zeros((1, 2, 2, 2))
    tensor[0, 0, 0, 0] = tensor[0, 1, 0, 1] = 0.5
    tensor[0, 1, 1, 0] = 1.0
    return HMM(tensor)


def zero_one_random() -> HMM:
    """Return the sequence 0, 1, a fair coin; 0, 1, a fair coin; … from an unknown phase."""
    tensor = np.zeros((1, 2, 3, 3))
    tensor[0, 0, 0, 1] = tensor[0, 1, 1, 2] = 1.0
    tensor[0, :, 2, 0] = 0.5
    return HMM(tensor)


def tiger(accuracy: float = 0.85) -> HMM:
    """Return Tiger: behind one of two doors is a tiger (Cassandra, Kaelbling & Littman 1994).

    Actions: 0 listen (-1), 1 open the left door, 2 open the right one (-100 for the tiger, +10 for the other),
    after which the tiger is behind a random door.
    Tokens: 0 a sound on the left, 1 a sound on the right. Listening is correct with probability `accuracy`. The token
    after opening a door, or at the beginning, carries no information.
    """
    right = np.array([[accuracy, 1 - accuracy], [1 - accuracy, accuracy]])  # (token, state)
    listen = np.stack([np.diag(row) for row in right])
    opened = np.full((2, 2, 2), 0.25)
    rewards = np.array([[-1.0, -1.0], [-100.0, 10.0], [10.0, -100.0]])
    return HMM(np.stack([listen, opened, opened]), initial=np.array([0.5, 0.5]), rewards=rewards, start=1)


PROCESSES: dict[str, Callable[..., HMM]] = {
    "Mess3": mess3,
    "Mess3Actions": mess3_actions,
    "GoldenMean": golden_mean,
    "Even": even,
    "ZeroOneRandom": zero_one_random,
    "Tiger": tiger,
}
"""Processes by the name in the environment's id, `worldmodel/<name>-v0`."""


def _mess3(x: float, a: float) -> np.ndarray:
    """Return the tensor (token, from, to). Raises ValueError for probabilities out of range."""
    if not (0 < x < 0.5 and 0 < a < 1):
        raise ValueError(f"env.kwargs.x={x} env.kwargs.a={a}: allowed are 0 < x < 1/2 and 0 < a < 1")
    go = np.full((3, 3), x) + np.eye(3) * (1 - 3 * x)
    say = np.full((3, 3), (1 - a) / 2) + np.eye(3) * (a - (1 - a) / 2)  # (token, state arrived at)
    return say[:, None, :] * go
