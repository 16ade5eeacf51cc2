"""Base class of the encoders of pixels."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from encoders.encoder import Encoder, mismatch, orthogonal, over_leading


class ImageEncoder(Encoder):
    """Base class of image encoders: everything except the network.

    A subclass sets `name`, builds `body`, which maps (N, C, H, W) in [0, 1] to a map, and calls `add_head`.

    Images are (H, W), (H, W, C) or (C, H, W). The channel axis is the one that differs from two equal ones, else the
    shorter one of the first and the last, else the last. Values are scaled to [0, 1] by the bounds of the space, if it
    has any.

    Raises ValueError for a space that is not an image Box.
    """

    name = "image"
    body: nn.Module

    def __init__(self, space: gym.Space):
        super().__init__()
        if not isinstance(space, gym.spaces.Box) or len(space.shape) not in (2, 3):
            raise mismatch(self.name, space, "an image Box: (H, W), (H, W, C) or (C, H, W)")
        self.dims = len(space.shape)
        self.channels_last = self.dims == 3 and channels_last(space.shape)
        sizes = space.shape if self.dims == 3 else (1, *space.shape)
        self.image = (sizes[2], *sizes[:2]) if self.channels_last else tuple(sizes)  # C, H, W
        low, high = float(np.min(space.low)), float(np.max(space.high))
        bounded = 0.0 < high - low < 1e6  # the limits of a dtype are not bounds
        self.low, self.range = (low, high - low) if bounded else (0.0, 1.0)

    def add_head(self, dim: int, spatial: bool, *, pool: bool = False) -> None:
        """Add the projection of the body's map to `dim`.

        If spatial, it projects per position to (dim, H', W'), else to (dim,): from the flattened map, or with `pool`
        from its mean over positions. Raises ValueError for an image too small for the body.
        """
        try:
            with torch.no_grad():
                channels, height, width = self.body.eval()(torch.zeros(1, *self.image)).shape[1:]
        except RuntimeError as error:
            size, why = "x".join(map(str, self.image[1:])), str(error).splitlines()[0]
            raise ValueError(f"encoder={self.name} with an image of {size}: too small ({why})") from None
        self.body.train()
        if spatial:
            self.head = orthogonal(nn.Conv2d(channels, dim, 1), 1.0)
            self.shape = (dim, height, width)
        else:
            squeeze = [nn.AdaptiveAvgPool2d(1)] if pool else []
            inputs = channels if pool else channels * height * width
            self.head = nn.Sequential(*squeeze, nn.Flatten(), orthogonal(nn.Linear(inputs, dim), 1.0))
            self.shape = (dim,)

    def normalise(self, obs: Tensor) -> Tensor:
        """Map raw images (*lead, *space.shape) to floats in [0, 1] (*lead, C, H, W)."""
        if self.dims == 2:
            obs = obs.unsqueeze(-3)
        elif self.channels_last:
            obs = obs.movedim(-1, -3)
        return (obs.float() - self.low) / self.range

    def forward(self, obs: Tensor) -> Tensor:
        return over_leading(lambda x: self.head(self.body(self.normalise(x))), obs, self.dims)


def channels_last(shape: tuple[int, ...]) -> bool:
    """Return True if (A, B, C) is (H, W, C), False if it is (C, H, W); see `ImageEncoder`."""
    first, middle, last = shape
    if first == middle or middle == last:
        return first == middle
    return last <= first
