"""Encoder of categorical observations."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from encoders.encoder import CodeEncoder, mismatch, over_leading
from encoders.table import Table


class Discrete(CodeEncoder):
    """One learned row per value of a Discrete space; for a MultiDiscrete space, the sum of its components' rows.

    Raises ValueError for other spaces.
    """

    name = "discrete"

    def __init__(self, space: gym.Space, dim: int = 128):
        super().__init__()
        if isinstance(space, gym.spaces.Discrete):
            sizes = [int(space.n)]
        elif isinstance(space, gym.spaces.MultiDiscrete):
            sizes = [int(n) for n in np.ravel(space.nvec)]
        else:
            raise mismatch(self.name, space, "Discrete or MultiDiscrete")
        self.num_values = tuple(sizes)
        self.dims, self.space_shape = len(space.shape), space.shape
        self.register_buffer("first", torch.as_tensor(np.ravel(space.start)), persistent=False)
        self.table = Table(sizes, dim, self.name)
        self.shape = (dim,)

    def codes(self, obs: Tensor) -> Tensor:
        """Map raw values (*lead, *space.shape) to int64 codes from 0, (*lead, 1, number of components)."""
        return over_leading(self._codes, obs, self.dims)[..., None, :]

    def observation(self, codes: Tensor) -> Tensor:
        """Map codes (*lead, 1, number of components) back to raw values (*lead, *space.shape), int64."""
        return (codes.squeeze(-2) + self.first).reshape(*codes.shape[:-2], *self.space_shape)

    def forward(self, obs: Tensor) -> Tensor:
        return over_leading(lambda x: self.table(self._codes(x)), obs, self.dims)

    def _codes(self, obs: Tensor) -> Tensor:
        return obs.reshape(len(obs), len(self.first)).long() - self.first  # (N, components)
