"""Encoder of symbolic cells, such as MiniGrid's views."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from encoders.encoder import CodeEncoder, mismatch, orthogonal, over_leading, perceptron
from encoders.table import Index, Table


class Grid(CodeEncoder):
    """Encoder of cells (H, W, C) of integer codes, where channel c ranges from 0 to num_values[c] - 1.

    MiniGrid's channels are object, colour and state. By default the encoder is one linear map of the one-hot codes of
    all cells, computed as a sum of table rows, which is cheap on a CPU.

    hidden: widths of ReLU layers before the last linear map.
    channels: convolutions over the cells before it, of 2x2, or padded 3x3 if `spatial`.
    spatial: the result is a map (dim, H, W).

    Raises ValueError for a space or layers that do not fit.
    """

    name = "grid"

    def __init__(
        self,
        space: gym.Space,
        dim: int = 128,
        num_values: tuple[int, ...] = (11, 6, 4),
        channels: tuple[int, ...] = (),
        hidden: tuple[int, ...] = (),
        spatial: bool = False,
    ):
        super().__init__()
        box = isinstance(space, gym.spaces.Box) and np.issubdtype(space.dtype, np.integer)
        if not box or len(space.shape) != 3 or space.shape[-1] != len(num_values):
            allowed = f"an integer Box (H, W, {len(num_values)}), as num_values={list(num_values)}"
            raise mismatch(self.name, space, allowed)
        if spatial and hidden:
            raise ValueError(f"encoder.hidden={list(hidden)}: allowed is [] where encoder.spatial=true")
        height, width, _ = space.shape
        self.cells = (height, width)
        self.num_values = tuple(num_values)
        per_position = list(num_values) * (height * width)
        self.convolved = spatial or bool(channels)
        if self.convolved:
            kernel = 3 if spatial else 2
            shrunk = 0 if spatial else len(channels)
            if min(height, width) <= shrunk:
                raise ValueError(f"encoder.channels={list(channels)}: too many 2x2 layers for {height}x{width} cells")
            self.index = Index(per_position, self.name)
            inputs, layers = sum(num_values), []
            for c in channels:
                conv = nn.Conv2d(inputs, c, kernel, padding=1 if spatial else 0)
                layers += [orthogonal(conv), nn.ReLU()]
                inputs = c
            if spatial:
                layers += [orthogonal(nn.Conv2d(inputs, dim, 1), 1.0)]
            else:
                flat = inputs * (height - shrunk) * (width - shrunk)
                layers += [nn.Flatten(), *perceptron([flat, *hidden, dim])]
            self.net = nn.Sequential(nn.Unflatten(1, (height, width, -1)), _ChannelsFirst(), *layers)
        else:
            first, *rest = [*hidden, dim]
            more = [nn.ReLU(), *perceptron([first, *rest])] if rest else []
            self.net = nn.Sequential(Table(per_position, first, self.name), *more)
        self.shape = (dim, height, width) if spatial else (dim,)

    def codes(self, obs: Tensor) -> Tensor:
        """Map raw cells (*lead, H, W, C) to int64 codes (*lead, H * W, C)."""
        return obs.flatten(-3, -2).long()

    def observation(self, codes: Tensor) -> Tensor:
        """Map codes (*lead, H * W, C) back to raw cells (*lead, H, W, C), uint8."""
        return codes.unflatten(-2, self.cells).to(torch.uint8)

    def forward(self, obs: Tensor) -> Tensor:
        return over_leading(self._encode, obs, 3)

    def _encode(self, obs: Tensor) -> Tensor:
        codes = obs.flatten(1)  # (N, H * W * C)
        return self.net(self._one_hot(codes) if self.convolved else codes)

    def _one_hot(self, codes: Tensor) -> Tensor:
        index = self.index(codes).long()
        dtype = next(self.net.parameters()).dtype
        hot = index.new_zeros(len(index), self.index.rows, dtype=dtype)
        return hot.scatter_(1, index, 1.0)  # (N, H * W * sum(num_values)), cell by cell


class _ChannelsFirst(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.movedim(-1, 1)
