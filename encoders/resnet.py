"""Small residual encoder of pixels."""

from __future__ import annotations

import gymnasium as gym
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.encoder import orthogonal
from encoders.image import ImageEncoder


class Residual(nn.Module):
    """Residual block x + conv(relu(conv(relu(x)))), all 3x3, on (N, C, H, W).

    The second convolution is initialised with `gain`.
    """

    def __init__(self, channels: int, gain: float):
        super().__init__()
        self.first = orthogonal(nn.Conv2d(channels, channels, 3, padding=1))
        self.second = orthogonal(nn.Conv2d(channels, channels, 3, padding=1), gain)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(F.relu(x))))


class ResNet(ImageEncoder):
    """Residual stack of IMPALA (Espeholt et al. 2018).

    A stage is a convolution, a pooling by 2 and two residual blocks. Maps of 8 positions per side or less are not
    pooled further, so that small images are supported.
    """

    name = "resnet"

    def __init__(
        self,
        space: gym.Space,
        dim: int = 128,
        channels: tuple[int, ...] = (16, 32, 32),
        spatial: bool = False,
    ):
        super().__init__(space)
        inputs, side = self.image[0], min(self.image[1:])
        modules: list[nn.Module] = []
        gain = (2 * len(channels)) ** -0.5  # so that the sum over blocks does not grow with their number
        for width in channels:
            modules.append(orthogonal(nn.Conv2d(inputs, width, 3, padding=1)))
            if side > 8:
                modules.append(nn.MaxPool2d(3, stride=2, padding=1))
                side = (side + 1) // 2
            modules += [Residual(width, gain), Residual(width, gain)]
            inputs = width
        self.body = nn.Sequential(*modules, nn.ReLU())
        self.add_head(dim, spatial)
