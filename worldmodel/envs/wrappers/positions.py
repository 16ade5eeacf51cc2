"""Positions of the copies in their world, for coverage."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from worldmodel.envs.vector import Step, VectorEnv
from worldmodel.envs.wrappers.base import Wrapper
from worldmodel.errors import ConfigError
from worldmodel.types import Obs


class Places(Wrapper):
    """Wrapper that adds `info["place"]`, (N, k) int64: the concatenated entries `keys` of info, in bins of `width`.

    Raises ConfigError for keys that `info` lacks, at the first reset or later.
    """

    def __init__(self, env: VectorEnv, keys: Sequence[str], width: float = 1.0):
        super().__init__(env)
        self.keys, self.width = list(keys), width

    def reset(self) -> Obs:
        obs = super().reset()
        self.info = self.info | self._place(self.info)
        return obs

    def step(self, act: Tensor) -> Step:
        step = self.env.step(act)
        step.info = step.info | self._place(step.info)
        return step

    def _place(self, info: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if unknown := [k for k in self.keys if k not in info]:
            allowed = ", ".join(info) or "null"
            raise ConfigError(f"env.place={self.keys}: {unknown[0]} is not in info, allowed are {allowed}")
        found = np.concatenate([info[k].reshape(self.num_envs, -1) for k in self.keys], 1)
        return {"place": np.floor(found / self.width).astype(np.int64)}
