"""Randomised chain: a small world that is exponentially hard to explore by random actions."""

from __future__ import annotations

import gymnasium as gym
import numpy as np

from worldmodel.envs.worlds.base import Worlds
from worldmodel.errors import check_range


class Chains(Worlds):
    """N copies of one chain of `length` states (MAX, Shyam et al. 2019, arXiv 1810.12162).

    MAX randomises the chain of Osband et al. 2016. Episodes begin in the second state and last length + 9 steps. One of
    the two actions goes left and the other right; the assignment is drawn per state, so that always going right needs
    both. Staying at an end, by moving outwards, has reward 0.001 on the left and 1 on the right; all other rewards are
    0.

    world: number of the random chain; all copies share it, whatever their seed.
    trap: a noisy end: in the leftmost state both actions go right or stay, with equal probability.

    `info`: state (N,); place (N, 1), the number 2 * state + act of the last transition, -1 if there was none. A
    coverage of 2 * length is complete.

    Raises ValueError for a length below 2.
    """

    def __init__(
        self,
        num_envs: int,
        length: int = 50,
        world: int = 0,
        trap: bool = False,
        max_episode_steps: int | None = None,
    ):
        check_range("env.kwargs.length", length, "[2, inf)", whole=True)
        limit = length + 9 if max_episode_steps is None else max_episode_steps
        super().__init__(num_envs, gym.spaces.Discrete(length), gym.spaces.Discrete(2), limit)
        self.length, self.trap = length, trap
        self.right = np.random.default_rng(world).integers(2, size=length)  # the action that goes right
        self._state = np.ones(num_envs, dtype=np.int64)

    def _advance(self, act: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        before = self._state
        move = np.where(act == self.right[before], 1, -1)
        if self.trap:
            move = np.where(before == 0, self.generator.integers(2, size=self.num_envs), move)
        after = np.clip(before + move, 0, self.length - 1)
        stays = after == before
        rew = 0.001 * (stays & (before == 0)) + 1.0 * (stays & (before == self.length - 1))
        self._state = np.where(new, 1, after)
        place = np.where(new, -1, 2 * before + act)[:, None]
        return self._state, rew, {"state": self._state, "place": place}
