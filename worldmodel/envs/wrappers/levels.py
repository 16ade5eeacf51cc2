"""A fixed set of levels to train on, and all others to be tested on (Cobbe et al. 2019, arXiv 1812.02341)."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class Levels(gym.Wrapper):
    """Each reset draws a level uniformly, which is the seed that the environment within is reset by: 0 to `count` - 1,
    or, `held_out`, any from `count` to 2^31 - 1. `info["level"]` tells which.

    The seed of a reset decides which levels come, not what they are.
    """

    def __init__(self, env: gym.Env, count: int, held_out: bool = False):
        super().__init__(env)
        self.bounds = (count, 2**31) if held_out else (0, count)
        self.generator = np.random.default_rng()
        self.level = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self.generator = np.random.default_rng(seed)
        self.level = int(self.generator.integers(*self.bounds))
        obs, info = self.env.reset(seed=self.level, options=options)
        return obs, {**info, "level": self.level}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, rew, end, trunc, info = self.env.step(action)
        return obs, rew, end, trunc, {**info, "level": self.level}
