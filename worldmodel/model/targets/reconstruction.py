"""The main encoder's latent, regularised by reconstruction."""

from __future__ import annotations

from functools import reduce
from math import prod
from typing import cast

import gymnasium as gym
import torch
from einops import rearrange
from torch import Tensor, nn

from encoders import CodeEncoder, Dict, Encoder
from encoders.image import ImageEncoder
from worldmodel.model.targets.base import LEARNT, Target
from worldmodel.model.targets.categorical import cross_entropy
from worldmodel.types import Obs


class Reconstruction(Target):
    """Decoder of z into the observation, per key.

    y = z without gradient, so that the prediction loss shapes the encoder through h alone. Loss: `reconstruction`, the
    sum over keys of the mean squared error of normalised pixels or vectors, or of the cross-entropy of categorical
    values, summed over channels and averaged over cells.

    hidden: width of the decoders.
    """

    scale_horizon = LEARNT

    def __init__(self, encoder: Encoder, obs_space: gym.Space, *, hidden: int = 256):
        super().__init__()
        self.shape = encoder.shape
        parts: dict[str, Encoder] = {"": encoder}
        spaces: dict[str, gym.Space] = {"": obs_space}
        if isinstance(obs_space, gym.spaces.Dict):
            parts = {key: cast(Encoder, cast(Dict, encoder).part(key)) for key in obs_space}
            spaces = dict(obs_space.spaces)
        self.keys = list(parts)
        self.decoders = nn.ModuleDict(
            {
                f"decode_{k.replace('.', '/')}": Decoder(prod(self.shape), part, spaces[k], hidden)
                for k, part in parts.items()
            }
        )

    def forward(self, obs: Obs, z: Tensor) -> Tensor:
        return z.detach()

    def losses(self, obs: Obs, act: Tensor, z: Tensor, y: Tensor, mask: Tensor) -> dict[str, Tensor]:
        lead = mask.shape
        rows = rearrange(z[:, :-1], "b l ... -> (b l) (...)")
        leaves = obs if isinstance(obs, dict) else {"": obs}
        losses = (
            cast(Decoder, decoder).loss(rows, leaves[key][:, :-1].flatten(0, 1))
            for key, decoder in zip(self.keys, self.decoders.values(), strict=True)
        )
        return {"reconstruction": reduce(torch.add, losses).view(lead)}


class Decoder(nn.Module):
    """Map latents (N, D) to one observation: codes if its encoder has `num_values`, else normalised values.

    Images of 32 pixels or more per side are decoded by transposed convolutions, all else by a perceptron.

    Raises ValueError for encoders without codes or `normalise`.
    """

    def __init__(self, inputs: int, encoder: Encoder, space: gym.Space, hidden: int):
        super().__init__()
        self.encoder = (encoder,)  # a tuple is not registered by nn.Module: its weights belong to the world model
        self.sizes: tuple[int, ...] | None = getattr(encoder, "num_values", None)
        with torch.no_grad():
            blank = torch.zeros(1, *(space.shape or ()))
            self.out: tuple[int, ...]
            if self.sizes is not None:
                blank = blank + torch.as_tensor(getattr(space, "start", 0))  # codes are relative to the start
                cells = cast(CodeEncoder, encoder).codes(blank).shape[1]
                self.out = (cells, sum(self.sizes))
            elif hasattr(encoder, "normalise"):
                self.out = tuple(cast(ImageEncoder, encoder).normalise(blank).shape[1:])
            else:
                raise ValueError(
                    f"target=reconstruction with encoder={type(encoder).__name__}: allowed are encoders with "
                    "codes or normalise"
                )
        self.net: nn.Sequential
        if len(self.out) == 3 and min(self.out[1:]) >= 32:
            channels, height, width = self.out
            self.net = upsampling(inputs, (channels, height, width))
        else:
            self.net = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, prod(self.out)))

    def loss(self, z: Tensor, obs: Tensor) -> Tensor:
        """Return the loss (N,) for z (N, D) and raw obs (N, *space.shape)."""
        (encoder,) = self.encoder
        out = self.net(z)
        if self.sizes is None:
            true = cast(ImageEncoder, encoder).normalise(obs).reshape(len(z), -1)
            return (out.flatten(1) - true).square().mean(1)
        codes = cast(CodeEncoder, encoder).codes(obs)
        return cross_entropy(out.view(len(z), *self.out), codes, self.sizes).mean(1)


def upsampling(inputs: int, image: tuple[int, int, int]) -> nn.Sequential:
    """Return a network (N, inputs) -> (N, C, H, W): a small map, doubled three times and cropped."""
    channels, height, width = image
    start = (64, -(-height // 8), -(-width // 8))
    return nn.Sequential(
        nn.Linear(inputs, prod(start)),
        nn.ReLU(),
        nn.Unflatten(1, start),
        nn.ConvTranspose2d(64, 64, 4, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(64, 32, 4, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(32, channels, 4, 2, 1),
        Crop(height, width),
    )


class Crop(nn.Module):
    """Crop (N, C, H', W') to (N, C, H, W)."""

    def __init__(self, height: int, width: int):
        super().__init__()
        self.height, self.width = height, width

    def forward(self, x: Tensor) -> Tensor:
        return x[..., : self.height, : self.width]
