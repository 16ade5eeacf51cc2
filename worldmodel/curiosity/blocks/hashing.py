"""Hashes of observations, for counting."""

from __future__ import annotations

from math import prod

import gymnasium as gym
import torch
from torch import Tensor, nn

from worldmodel.curiosity.base import AgentSpec
from worldmodel.curiosity.blocks.features import RandomFeatures, new_obs
from worldmodel.errors import check_range
from worldmodel.types import Sequences

FEATURES = 128  # width of the random features for SimHash


class StateHash(nn.Module):
    """Map observations to int64 keys; equal observations have equal keys.

    Symbolic observations, whose encoder embeds their values, have exact keys: key = sum_i r_i x_i modulo 2^64 with
    random r (Carter & Wegman 1979). Two different ones collide with a probability below 2^-56.

    All others use SimHash (Tang et al. 2017, "#Exploration", eq. 1): the signs of `bits` random projections A g(o).
    Nearby observations share a key; fewer bits merge more of them. g are random features of whitened observations.
    Their statistics are those of the first rollout and stay fixed, because a changing hash would make old states new.

    Raises ValueError if `bits` is not in 1..62.
    """

    def __init__(self, spec: AgentSpec, *, bits: int):
        super().__init__()
        check_range("curiosity.bits", bits, "[1, 62]", whole=True)
        obs_space, encoder = spec.obs_space, spec.encoder
        self.keys = list(obs_space) if isinstance(obs_space, gym.spaces.Dict) else None
        parts = [encoder] if self.keys is None else [encoder.part(key) for key in self.keys]
        self.exact = all(hasattr(part, "num_values") for part in parts)
        if self.exact:
            spaces = [obs_space] if self.keys is None else [obs_space[key] for key in self.keys]
            size = sum(prod(space.shape) for space in spaces)
            self.register_buffer("weight", torch.randint(-(2**63), 2**63 - 1, (size,)))
        else:
            self.features = RandomFeatures(spec, dim=FEATURES)
            self.register_buffer("projection", torch.randn(self.features.width, bits))
            self.register_buffer("primed", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def forward(self, roll: Sequences) -> Tensor:
        """Return the keys at both ends of the T new transitions of a new rollout: (N, T+1)."""
        if self.exact:
            obs = new_obs(roll)
            leaves = [obs] if self.keys is None else [obs[key] for key in self.keys]
            flat = torch.cat([x.reshape(*x.shape[:2], -1).long() for x in leaves], -1)  # (N, T+1, size)
            return (flat * self.weight).sum(-1)
        if not self.primed:
            self.features.update_and_encode(roll)
            self.primed.fill_(True)
        return pack_bits(self.features(roll) @ self.projection > 0)


def pack_bits(bits: Tensor) -> Tensor:
    """Pack (*lead, k) bool, k at most 62, into (*lead) int64."""
    return (bits.long() << torch.arange(bits.shape[-1], device=bits.device)).sum(-1)
