"""Encoder of dictionary observations."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.encoder import Encoder, mismatch, module_name, orthogonal
from encoders.rule import leaf_encoder


class Dict(Encoder):
    """One encoder per key; their outputs are concatenated, rectified and projected to `dim`.

    parts: encoders of single keys, each called with the key's space. The other keys use `leaf_encoder`.

    Raises ValueError for a space that is not a Dict, and for keys that the space lacks.
    """

    name = "dict"

    def __init__(
        self, space: gym.Space, dim: int = 128, parts: dict[str, Callable[[gym.Space], Encoder]] | None = None
    ):
        super().__init__()
        if not isinstance(space, gym.spaces.Dict):
            raise mismatch(self.name, space, "a Dict")
        parts = dict(parts or {})
        if unknown := parts.keys() - space.keys():
            raise ValueError(f"encoder.parts.{min(unknown)}: no such key, allowed are {', '.join(space.keys())}")
        self.keys = list(space)
        made = {k: parts[k](s) if k in parts else leaf_encoder(s, dim) for k, s in space.items()}
        self.parts = nn.ModuleDict({module_name(k): part for k, part in made.items()})
        inputs = sum(prod(part.shape) for part in self.parts.values())
        self.head = orthogonal(nn.Linear(inputs, dim), 1.0)
        self.shape = (dim,)

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        pairs = zip(self.keys, self.parts.values(), strict=True)
        latents = [z.flatten(z.ndim - len(part.shape)) for key, part in pairs for z in [part(obs[key])]]
        return self.head(F.relu(torch.cat(latents, -1)))

    def part(self, key: str) -> nn.Module:
        """Return the encoder of a key."""
        return self.parts[module_name(key)]
