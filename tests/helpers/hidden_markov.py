"""Small hidden Markov processes with known answers, for tests of probes: T[token, from, to]."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def mess3(x: float = 0.05, a: float = 0.85) -> np.ndarray:
    """Mess3 (Marzen & Crutchfield 2017): a state stays with probability 1 - 2x; the new state emits
    its own token with probability a and each other token with (1 - a) / 2."""
    move = np.full((3, 3), x) + np.eye(3) * (1 - 3 * x)
    show = np.full((3, 3), (1 - a) / 2) + np.eye(3) * (a - (1 - a) / 2)
    return show.T[:, None, :] * move[None]


def sample(tensor: np.ndarray, streams: int, rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens (S, R), the belief after each token (S, R, states) and the probabilities before it (S, R, tokens)."""
    rng = np.random.default_rng(seed)
    states = tensor.shape[1]
    belief = np.tile(stationary(tensor), (streams, 1))
    state = np.array([rng.choice(states, p=b) for b in belief])
    joint = tensor.transpose(1, 0, 2).reshape(states, -1).cumsum(1)  # (from, token x to)
    seen, beliefs, predicted = [], [], []
    for _ in range(rows):
        predicted.append(np.einsum("sf,kft->sk", belief, tensor))
        pick = (joint[state] < rng.random((streams, 1))).sum(1).clip(max=joint.shape[1] - 1)
        token, state = np.divmod(pick, states)
        belief = filter_step(tensor, belief, token)
        seen.append(token)
        beliefs.append(belief)
    return np.stack(seen, 1), np.stack(beliefs, 1), np.stack(predicted, 1)


def filter_step(tensor: np.ndarray, belief: np.ndarray, token: np.ndarray) -> np.ndarray:
    """Bayes' rule: belief (S, states) and the next token (S,) -> the next belief (S, states)."""
    after = np.einsum("sf,sft->st", belief, tensor[token])
    return after / after.sum(1, keepdims=True)


def stationary(tensor: np.ndarray) -> np.ndarray:
    """Stationary distribution of the hidden chain."""
    values, vectors = np.linalg.eig(tensor.sum(0).T)
    first = np.real(vectors[:, np.argmax(np.real(values))])
    return first / first.sum()


class BayesPredictor:
    """Exact predictor of a hidden Markov process, a `worldmodel.analysis.probes.compressor.Predictor`."""

    width = 1

    def __init__(self, tensor: np.ndarray):
        self.tensor = tensor

    def reset(self, streams: int) -> None:
        self.belief = np.tile(stationary(self.tensor), (streams, 1))

    def row(self, send: Callable[..., np.ndarray]) -> None:
        predicted = np.einsum("sf,kft->sk", self.belief, self.tensor)
        token = send("token", np.arange(len(predicted)), 0, predicted)
        self.belief = filter_step(self.tensor, self.belief, token)
