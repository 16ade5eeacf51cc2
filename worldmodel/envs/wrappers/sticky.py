"""Sticky actions: random repetitions of the previous action (Machado et al. 2018, arXiv 1709.06009)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from worldmodel.envs.vector import Step, VectorEnv
from worldmodel.envs.wrappers.base import Wrapper
from worldmodel.types import Obs


class Sticky(Wrapper):
    """Wrapper that repeats the last executed action of a copy with probability `p`, but never across a reset."""

    def __init__(self, env: VectorEnv, p: float, seed: int):
        super().__init__(env)
        self.p = p
        self._generator = torch.Generator().manual_seed(seed)
        self._first = torch.ones(self.num_envs, dtype=torch.bool)  # no action yet in this episode
        self._last: Tensor | None = None  # (N, *act_shape) executed

    def reset(self) -> Obs:
        self._first, self._last = torch.ones_like(self._first), None
        return super().reset()

    def step(self, act: Tensor) -> Step:
        """Take one action in each copy, (N, *act_shape); the executed one may differ."""
        act = act.detach().cpu()
        repeat = (torch.rand(self.num_envs, generator=self._generator) < self.p) & ~self._first
        if self._last is not None:
            act = torch.where(repeat.view(-1, *[1] * (act.dim() - 1)), self._last, act)
        step = self.env.step(act)
        self._first, self._last = step.ignored, act
        return step

    def state_dict(self) -> dict[str, Any]:
        own = {"generator": self._generator.get_state(), "first": self._first, "last": self._last}
        return own | super().state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> bool:
        self._generator.set_state(state["generator"])
        self._first, self._last = state["first"], state["last"]
        return super().load_state_dict(state)
