"""Environments whose episodes last one step, begin solved, or never end."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode


class Lasting(gym.Env):
    """Environment that observes (random number, step of the episode) and has a reward of 1 for action 1.

    length: steps of an episode; None: it never ends. solved: every second episode begins with `info["is_success"]`.
    """

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Discrete(2)

    def __init__(self, length: int | None = None, solved: bool = False, render_mode: str | None = None):
        self.length, self.solved, self.render_mode, self.episodes = length, solved, render_mode, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.t, self.episodes = 0, self.episodes + 1
        return self._observe(), self._info(self.episodes % 2 == 0)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self._observe(), float(action), self.t == self.length, False, self._info(True)

    def _observe(self) -> np.ndarray:
        return np.array([self.np_random.random(), self.t], np.float32)

    def _info(self, success: bool) -> dict[str, Any]:
        return {"is_success": success} if self.solved else {}


def lasting_vector(num_envs: int, **kwargs: Any) -> gym.vector.VectorEnv:
    """A vector environment that cannot begin an episode of one copy alone."""
    return gym.vector.SyncVectorEnv([lambda: Lasting(**kwargs)] * num_envs, autoreset_mode=AutoresetMode.NEXT_STEP)


if "Lasting-v0" not in gym.registry:
    gym.register("Lasting-v0", entry_point=Lasting, vector_entry_point=lasting_vector)
