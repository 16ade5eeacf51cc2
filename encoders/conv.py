"""Plain convolutional encoder of pixels."""

from __future__ import annotations

import gymnasium as gym
from torch import nn

from encoders.encoder import orthogonal
from encoders.image import ImageEncoder


class Conv(ImageEncoder):
    """Convolutions and ReLUs, then one linear map.

    layers: (channels, kernel, stride) each. null takes the layers of Mnih et al. (2015) for images of 36 pixels or more
    per side. For smaller images it takes padded 3x3 layers, which reduce the map to 8 positions per side or less.
    """

    name = "conv"

    def __init__(
        self,
        space: gym.Space,
        dim: int = 128,
        layers: list[tuple[int, int, int]] | None = None,
        spatial: bool = False,
    ):
        super().__init__(space)
        side = min(self.image[1:])
        small = layers is None and side < 36
        if layers is None:
            layers = [(32, 8, 4), (64, 4, 2), (64, 3, 1)]
        if small:
            layers = [(32, 3, 1), (64, 3, 2), (64, 3, 2 if side > 16 else 1)]
        modules: list[nn.Module] = []
        channels = self.image[0]
        for out, kernel, stride in layers:
            conv = nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2 if small else 0)
            modules += [orthogonal(conv), nn.ReLU()]
            channels = out
        self.body = nn.Sequential(*modules)
        self.add_head(dim, spatial)
