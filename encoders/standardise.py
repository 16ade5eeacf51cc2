"""Vectors in units of their own spread."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLIP = 10.0


class Standardise(nn.Module):
    """Map raw numbers (*lead, *shape) to clip((x - mean) / std, -10, 10), float32.

    The map is clip(x, -10, 10) until the owner of the running statistics sets `mean` and `std`. Both are buffers, so
    that they are in every checkpoint and in every copy of the encoder.

    key: name of the entry of a dict observation that is read; empty for other observations.
    """

    mean: Tensor  # shape
    std: Tensor  # shape, above 0

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.key = ""
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        return ((x.float() - self.mean) / self.std).clamp(-CLIP, CLIP)
