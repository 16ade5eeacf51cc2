"""Encoder of dictionary observations."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from math import prod

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.conv import Conv
from encoders.discrete import Discrete
from encoders.encoder import Encoder, mismatch, orthogonal
from encoders.grid import Grid
from encoders.mlp import MLP
from encoders.standardise import Standardise


class Dict(Encoder):
    """One encoder per key; their outputs are concatenated, rectified and projected to `dim`.

    parts: encoders of single keys, each called with the key's space. The other keys use `default_encoder`.
    normalise: vectors are in units of their running spread; see `MLP`.

    Raises ValueError for a space that is not a Dict, and for keys that the space lacks.
    """

    name = "dict"

    def __init__(
        self,
        space: gym.Space,
        dim: int = 128,
        parts: dict[str, Callable[..., Encoder]] | None = None,
        normalise: bool = False,
    ):
        super().__init__()
        if not isinstance(space, gym.spaces.Dict):
            raise mismatch(self.name, space, "a Dict")
        parts = dict(parts or {})
        if unknown := parts.keys() - space.keys():
            raise ValueError(f"encoder.parts.{min(unknown)}: no such key, allowed are {', '.join(space.keys())}")
        self.parts = nn.ModuleDict(
            {
                k: _build(parts[k], s, normalise) if k in parts else default_encoder(s, dim, normalise)
                for k, s in space.items()
            }
        )
        for key, part in self.parts.items():
            for module in part.modules():
                if isinstance(module, Standardise):
                    module.key = key
        inputs = sum(prod(part.shape) for part in self.parts.values())
        self.head = orthogonal(nn.Linear(inputs, dim), 1.0)
        self.shape = (dim,)

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        latents = [z.flatten(z.ndim - len(part.shape)) for key, part in self.parts.items() for z in [part(obs[key])]]
        return self.head(F.relu(torch.cat(latents, -1)))


def _build(part: Callable[..., Encoder], space: gym.Space, normalise: bool) -> Encoder:
    """Return the encoder of a key, with the dictionary's `normalise` if it takes one and has none of its own."""
    chosen = getattr(part, "keywords", {})
    unset = "normalise" in inspect.signature(part).parameters and "normalise" not in chosen
    return part(space, normalise=normalise) if unset else part(space)


def default_encoder(space: gym.Space, dim: int = 128, normalise: bool = False) -> Encoder:
    """Return the default encoder of a space.

    Categorical values use `Discrete`. Integer images of three channels and less than 16 positions per side use `Grid`,
    larger images `Conv`. Every other Box and MultiBinary use `MLP`, which `normalise` applies to.

    Raises ValueError for other spaces.
    """
    if isinstance(space, gym.spaces.Dict):
        return Dict(space, dim, normalise=normalise)
    if isinstance(space, gym.spaces.Discrete | gym.spaces.MultiDiscrete):
        return Discrete(space, dim)
    if isinstance(space, gym.spaces.Box) and len(space.shape) in (2, 3) and np.issubdtype(space.dtype, np.integer):
        symbolic = len(space.shape) == 3 and space.shape[-1] == 3 and max(space.shape[:2]) < 16
        return Grid(space, dim) if symbolic else Conv(space, dim)
    if isinstance(space, gym.spaces.Box | gym.spaces.MultiBinary):
        return MLP(space, dim, normalise=normalise)
    raise mismatch("default", space, "Box, Discrete, MultiDiscrete, MultiBinary or Dict")
