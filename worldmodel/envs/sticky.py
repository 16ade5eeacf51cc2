"""Sticky actions: an environment that sometimes doesn't listen (Machado et al. 2018, arXiv:1709.06009)."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from worldmodel.envs.vector import Step, VectorEnv
from worldmodel.types import Obs


class Sticky:
    """With probability `p` a copy repeats the action that it executed last, but never across a reset."""

    def __init__(self, env: VectorEnv, p: float, seed: int):
        self.env, self.p = env, p
        self.num_envs: int = env.num_envs
        self.obs_space: gym.Space = env.obs_space
        self.act_space: gym.Space = env.act_space
        self.null_action: int | None = env.null_action
        self.resumable: bool = env.resumable
        self._generator = torch.Generator().manual_seed(seed)
        self._first = torch.ones(self.num_envs, dtype=torch.bool)  # no action yet in this episode
        self._last: Tensor | None = None  # (N, *act_shape) executed
        self.info: dict[str, np.ndarray] = {}

    def reset(self) -> Obs:
        self._first, self._last = torch.ones_like(self._first), None
        obs = self.env.reset()
        self.info = self.env.info
        return obs

    def step(self, act: Tensor) -> Step:
        """One action in each copy, (N, *act_shape); the executed one may be another."""
        act = act.detach().cpu()
        repeat = (torch.rand(self.num_envs, generator=self._generator) < self.p) & ~self._first
        if self._last is not None:
            act = torch.where(repeat.view(-1, *[1] * (act.dim() - 1)), self._last, act)
        step = self.env.step(act)
        self._first, self._last = step.ignored, act
        return step

    def render(self) -> np.ndarray | None:
        return self.env.render()

    def close(self) -> None:
        self.env.close()

    def state_dict(self) -> dict[str, Any]:
        own = {"generator": self._generator.get_state(), "first": self._first, "last": self._last}
        return own | {"env": self.env.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._generator.set_state(state["generator"])
        self._first, self._last = state["first"], state["last"]
        self.env.load_state_dict(state["env"])
