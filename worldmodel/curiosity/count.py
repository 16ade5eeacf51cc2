"""Counts of states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import gymnasium as gym
import torch
import torch.distributed as dist
from torch import Tensor, nn

from encoders import Encoder
from worldmodel.curiosity.base import Curiosity
from worldmodel.curiosity.blocks.episodic import EpisodicVisits
from worldmodel.distributed import sum_over_ranks, world_size
from worldmodel.model.world_model import Outputs
from worldmodel.types import Rollout


class Count(Curiosity):
    """1 / sqrt(N(o_t+1)) (Strehl & Littman 2008; Tang et al. 2017, arXiv 1611.04717), N counting the visit itself.

    scope:
      `episodic`  N since the episode began, in this environment: every episode explores anew.
      `lifelong`  N since training began, over all environments: it fades for good.
      `product`   the product of both rewards.
    `bits` is the granularity of the hash where observations are not symbolic; see `StateHash`. Observations are
    counted, not states: under a partial view many states look the same.
    """

    def __init__(
        self,
        make_encoder: Callable[..., Encoder],
        obs_space: gym.Space,
        encoder: Encoder,
        num_envs: int,
        *,
        scope: Literal["episodic", "lifelong", "product"] = "episodic",
        bits: int = 32,
        capacity: int = 1024,
        buckets: int = 2**17,
    ):
        super().__init__()
        if scope not in ("episodic", "lifelong", "product"):
            raise ValueError(f"curiosity.scope={scope}: allowed are episodic, lifelong, product")
        self.visits = EpisodicVisits(make_encoder, obs_space, encoder, num_envs, bits=bits, capacity=capacity)
        self.lifelong = None if scope == "episodic" else LifelongVisits(buckets)
        self.scope = scope

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        keys = self.visits.hash(roll)
        if self.scope == "lifelong":
            return self.lifelong(keys).float().rsqrt()
        episodic = self.visits.count(keys, roll).float().rsqrt()
        return episodic if self.scope == "episodic" else episodic * self.lifelong(keys).float().rsqrt()


class LifelongVisits(nn.Module):
    """N(key) since training began: a counting Bloom filter (Tang et al. 2017, app. B), of which the smallest of four
    counters is the count. It never counts too little, and too much only where all four are shared with other keys.

    Visits at the same step of several environments count together, on all ranks. In evaluation nothing is added: a
    visit there counts as if it were the next one.
    """

    def __init__(self, buckets: int, rows: int = 4):
        super().__init__()
        if buckets < 2 or buckets & (buckets - 1):
            raise ValueError(f"curiosity.buckets={buckets}: allowed are powers of 2 from 2")
        self.buckets = buckets
        self.register_buffer("factor", torch.randint(-(2**63), 2**63 - 1, (rows,)) | 1)
        self.register_buffer("visits", torch.zeros(rows * buckets, dtype=torch.int32))

    @torch.no_grad()
    def forward(self, keys: Tensor) -> Tensor:
        """keys (N, T+1) of a fresh rollout -> the counts (N, T) of the rows 1..T, whole numbers from 1."""
        place = self.places(keys[:, 1:])  # (N, T, rows)
        if not self.training:
            return self.visits[place].min(-1).values + 1
        everywhere = over_ranks(place)
        one = torch.ones((), dtype=torch.int32, device=keys.device)
        counts = []
        for t in range(place.shape[1]):
            at = everywhere[:, t].flatten()
            self.visits.index_add_(0, at, one.expand(len(at)))
            counts.append(self.visits[place[:, t]].min(-1).values)
        return torch.stack(counts, 1)

    def places(self, keys: Tensor) -> Tensor:
        """Multiply-shift hashing (Dietzfelbinger et al. 1997): keys (*lead) -> (*lead, rows), one in each table."""
        top = (keys[..., None] * self.factor) >> (64 - self.buckets.bit_length() + 1)
        own = torch.arange(len(self.factor), device=keys.device) * self.buckets
        return (top & (self.buckets - 1)) + own


def over_ranks(x: Tensor) -> Tensor:
    """x (N, ...) of this rank -> (ranks * N, ...) of all of them, in their order."""
    if world_size() == 1:
        return x
    all_of_them = x.new_zeros(world_size(), *x.shape)
    all_of_them[dist.get_rank()] = x
    return sum_over_ranks(all_of_them).flatten(0, 1)
