"""Base class of the wrappers of a vector environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from torch import Tensor

from worldmodel.envs.spaces import Translation
from worldmodel.envs.vector import Step, VectorEnv
from worldmodel.types import Obs


class Wrapper:
    """Wrapper that leaves the environment unchanged; see `VectorEnv`. A subclass overrides some methods."""

    def __init__(self, env: VectorEnv):
        self.env = env
        self.num_envs: int = env.num_envs
        self.obs_space: gym.Space = env.obs_space
        self.act_space: gym.Space = env.act_space
        self.null_action: int | None = env.null_action
        self.time_limit: int | None = env.time_limit
        self.resumable: bool = env.resumable
        self.info: dict[str, np.ndarray] = {}

    @property
    def translation(self) -> Translation:
        return self.env.translation

    def reset(self) -> Obs:
        obs = self.env.reset()
        self.info = self.env.info
        return obs

    def step(self, act: Tensor) -> Step:
        return self.env.step(act)

    def limit_episodes(self, steps: int) -> None:
        self.env.limit_episodes(steps)

    def render(self) -> np.ndarray | None:
        return self.env.render()

    def close(self) -> None:
        self.env.close()

    def record(self, path: Path | None = None, limit: int | None = None) -> None:
        self.env.record(path, limit)

    def is_spent(self, steps: int) -> bool:
        return self.env.is_spent(steps)

    def flush(self) -> None:
        self.env.flush()

    def state_dict(self) -> dict[str, Any]:
        return {"env": self.env.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> bool:
        return self.env.load_state_dict(state["env"])
