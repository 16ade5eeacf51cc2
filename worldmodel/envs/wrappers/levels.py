"""Fixed training levels and held-out test levels (Cobbe et al. 2019, arXiv 1812.02341)."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class Levels(gym.Wrapper):
    """Wrapper that draws a level uniformly at each reset; `info["level"]` is its number.

    A level is the seed that the wrapped environment is reset with: 0 to `count` - 1, or with `held_out` any from
    `count` to 2^31 - 1. The seed of a reset determines which levels are drawn, not the levels themselves.
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
