"""Count-based rewards."""

from __future__ import annotations

from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from worldmodel.curiosity.base import AgentSpec, Curiosity
from worldmodel.curiosity.blocks.episodic import EpisodicVisits
from worldmodel.distributed import sum_over_ranks, world_size
from worldmodel.errors import check_choice
from worldmodel.model.world_model import Outputs
from worldmodel.types import Rollout


class Count(Curiosity):
    """Count-based reward 1 / sqrt(N(o_t+1)) (Strehl & Littman 2008; Tang et al. 2017, arXiv 1611.04717).

    N includes the current visit.

    scope:
      `episodic`  N since the beginning of the episode, in this environment. Counts restart in every episode.
      `lifelong`  N since the beginning of training, over all environments. The reward of a state decays permanently.
      `product`   the product of both rewards.

    `bits` is the granularity of the hash for observations that are not symbolic; see `StateHash`. Observations are
    counted, not states: under a partial view many states share one observation.
    """

    def __init__(
        self,
        spec: AgentSpec,
        *,
        scope: Literal["episodic", "lifelong", "product"] = "episodic",
        bits: int = 32,
        capacity: int = 1024,
        buckets: int = 2**17,
    ):
        super().__init__(spec)
        check_choice("curiosity.scope", scope, ("episodic", "lifelong", "product"))
        self.visits = EpisodicVisits(spec, bits=bits, capacity=capacity)
        self.lifelong = None if scope == "episodic" else LifelongVisits(buckets)
        self.scope = scope

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        keys = self.visits.hash(roll)
        if self.scope == "lifelong":
            return self.lifelong(keys).float().rsqrt()
        episodic = self.visits.count(keys, roll).float().rsqrt()
        return episodic if self.scope == "episodic" else episodic * self.lifelong(keys).float().rsqrt()


class LifelongVisits(nn.Module):
    """N(key) since the beginning of training, in a counting Bloom filter (Tang et al. 2017, app. B).

    The count is the smallest of four counters. It is never too small, and too large only if all four counters are
    shared with other keys. Visits at the same step of several environments count together, on all ranks. In evaluation
    mode nothing is added, and a visit counts as if it were the next one.

    Raises ValueError if `buckets` is not a power of 2 from 2.
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
        """Return the counts (N, T) of rows 1..T, whole numbers from 1, for keys (N, T+1) of a new rollout."""
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
        """Map keys (*lead) to counter indices (*lead, rows), one per table, by multiply-shift hashing.

        Source: Dietzfelbinger et al. 1997.
        """
        top = (keys[..., None] * self.factor) >> (64 - self.buckets.bit_length() + 1)
        own = torch.arange(len(self.factor), device=keys.device) * self.buckets
        return (top & (self.buckets - 1)) + own


def over_ranks(x: Tensor) -> Tensor:
    """Concatenate x (N, ...) of all ranks, in rank order: (ranks * N, ...)."""
    if world_size() == 1:
        return x
    all_of_them = x.new_zeros(world_size(), *x.shape)
    all_of_them[dist.get_rank()] = x
    return sum_over_ranks(all_of_them).flatten(0, 1)
