"""Environment that fails on purpose, to test how a run handles it."""

from __future__ import annotations

import os
import signal
from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np

from worldmodel.errors import check_choice

Kind = Literal["raise", "raise_in_reset", "die", "freeze", "nan", "nan_reward", "shape"]
KINDS: tuple[str, ...] = get_args(Kind)


class Breaking(gym.Env):
    """Environment that observes (episode's random number, step), has reward 1 per step, and fails on purpose.

    Episodes end after `length` steps. Every `after`-th step of a copy fails in the way of `kind`; with
    `raise_in_reset`, the reset after that many steps fails. The random number identifies episodes, so that a false
    continuation of one is detected.

    Raises ValueError for an unknown kind.
    """

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, kind: Kind = "raise", after: int = 10, length: int = 1000, render_mode: str | None = None):
        check_choice("kind", kind, KINDS)
        self.kind, self.after, self.length, self.render_mode = kind, after, length, render_mode
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        if self.kind == "raise_in_reset" and self.steps >= self.after:
            raise RuntimeError("broken on purpose")
        self.t, self.name = 0, self.np_random.random()
        return self._observe(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.t += 1
        self.steps += 1
        obs, rew = self._observe(), 1.0
        if self.steps % self.after == 0:
            if self.kind == "raise":
                raise RuntimeError("broken on purpose")
            if self.kind == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.kind == "freeze":
                os.kill(os.getpid(), signal.SIGSTOP)
            if self.kind == "nan":
                obs = obs * np.float32(np.nan)
            if self.kind == "nan_reward":
                rew = float("nan")
            if self.kind == "shape":
                obs = np.zeros(3, np.float32)
        return obs, rew, self.t >= self.length, False, {}

    def _observe(self) -> np.ndarray:
        return np.array([self.name, self.t], np.float32)
