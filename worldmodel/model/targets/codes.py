"""The observation's own codes."""

from __future__ import annotations

from math import prod
from typing import ClassVar

import gymnasium as gym
import torch
from torch import Tensor
from torch.nn import functional as F

from encoders import Encoder
from worldmodel.model.targets.base import Target
from worldmodel.model.targets.categorical import code_encoder
from worldmodel.types import Obs

MOST = 65_536  # kinds of cells


class Codes(Target):
    """The one-hot codes of the observation, whose change is categorical: each cell stays or shows another code.

    y (cells * sum(sizes)) is fixed, carries no gradient and stays in its own units. Nothing of the observation is lost,
    so a sampled change is the next observation, which can be encoded and fed back. A code is the tuple of the C
    components of a cell, numbered row by row; in MiniGrid an object, a colour and a state.

    cells: height and width of the view; (1, 1) for Discrete spaces.
    sizes: number of values of each component.

    Raises ValueError for encoders without codes, and for more than 65,536 kinds of cells.
    """

    scaled: ClassVar[bool] = False
    values: Tensor

    def __init__(self, encoder: Encoder, obs_space: gym.Space):
        super().__init__()
        coder = code_encoder(encoder, "target=codes")
        self.sizes = tuple(coder.num_values)
        self.num_codes = prod(self.sizes)
        if self.num_codes > MOST:
            raise ValueError(f"target=codes with {self.num_codes} kinds of cells: allowed are at most {MOST}")
        self.components_of = coder.codes  # a method, so that the encoder is not a part of the target
        blank = torch.zeros(1, *(obs_space.shape or ())) + torch.as_tensor(getattr(obs_space, "start", 0))
        count = coder.codes(blank).shape[1]
        self.cells = getattr(coder, "cells", (1, count))
        self.shape = (count * sum(self.sizes),)
        values = torch.block_diag(*(torch.arange(size, dtype=torch.float32)[:, None] for size in self.sizes))
        self.register_buffer("values", values, persistent=False)  # (sum(sizes), C)

    @torch.no_grad()
    def forward(self, obs: Obs, z: Tensor) -> Tensor:
        assert isinstance(obs, Tensor)
        return self.one_hot(self.components_of(obs)).flatten(-2).float()

    def one_hot(self, components: Tensor) -> Tensor:
        """Return the one-hot codes (*lead, sum(sizes)) of components (*lead, C)."""
        parts = zip(components.unbind(-1), self.sizes, strict=True)
        return torch.cat([F.one_hot(part, size) for part, size in parts], -1)

    def components(self, y: Tensor) -> Tensor:
        """Return the components (*lead, cells, C) int64 of one-hot codes y (*lead, *shape)."""
        return (y.unflatten(-1, (-1, sum(self.sizes))) @ self.values).long()

    def most_probable(self, y: Tensor) -> Tensor:
        """Return the most probable components of y, probabilities (*lead, *shape), as one-hot codes (*lead, *shape)."""
        cells = y.unflatten(-1, (-1, sum(self.sizes)))
        parts = torch.stack([part.argmax(-1) for part in cells.split(self.sizes, -1)], -1)
        return self.one_hot(parts).flatten(-2).to(y.dtype)

    def codes(self, components: Tensor) -> Tensor:
        """Number the codes: components (*lead, cells, C) -> (*lead, cells), from 0 to `num_codes` - 1."""
        code = torch.zeros_like(components[..., 0])
        for c, size in enumerate(self.sizes):
            code = code * size + components[..., c]
        return code

    def split(self, codes: Tensor) -> Tensor:
        """Return the components (*codes.shape, C) of codes; the inverse of `codes`."""
        parts = []
        for size in reversed(self.sizes):
            parts.append(codes % size)
            codes = codes // size
        return torch.stack(parts[::-1], -1)
