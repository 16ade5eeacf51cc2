"""Encoder of dictionary observations."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from math import prod

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.encoder import Encoder, mismatch, module_name, orthogonal
from encoders.rule import leaf_encoder
from encoders.standardise import Standardise


class Dict(Encoder):
    """One encoder per key; their outputs are concatenated, rectified and projected to `dim`.

    parts: encoders of single keys, each called with the key's space. The other keys use `leaf_encoder`.
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
        self.keys = list(space)
        self.parts = nn.ModuleDict()
        for key, leaf in space.items():
            part = _build(parts[key], leaf, normalise) if key in parts else leaf_encoder(leaf, dim, normalise)
            for module in part.modules():
                if isinstance(module, Standardise):
                    module.key = key
            self.parts[module_name(key)] = part
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


def _build(part: Callable[..., Encoder], space: gym.Space, normalise: bool) -> Encoder:
    """Return the encoder of a key, with the dictionary's `normalise` if it takes one and does not set it."""
    chosen = getattr(part, "keywords", {})
    unset = "normalise" in inspect.signature(part).parameters and "normalise" not in chosen
    return part(space, normalise=normalise) if unset else part(space)
