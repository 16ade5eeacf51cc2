"""State entropy by nearest neighbours in random features."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.curiosity.base import AgentSpec, Curiosity
from worldmodel.curiosity.blocks.features import RandomFeatures
from worldmodel.errors import check_range
from worldmodel.model.world_model import Outputs
from worldmodel.types import Rollout

ROWS = 1024  # whose distances are computed together


class RE3(Curiosity):
    """Distance to the k-th nearest neighbour among the rollout's observations: log(1 + || y_t+1 - y_t+1^kNN ||_2).

    y are the features of a fixed random network. The mean of the logarithm is, up to constants, an estimate of the
    entropy of the observations' distribution (Seo et al. 2021, arXiv 2102.09430, eq. 4-5), so that rare observations
    are paid, whether or not earlier rollouts had them. There are no losses.

    As in the authors' on-policy agent, neighbours are the observations of one rollout, here at most `candidates` of
    them, evenly spaced; of several ranks, each has its own. Two departures: observations are whitened, and features are
    in units of their running std.
    """

    def __init__(self, spec: AgentSpec, *, dim: int = 64, neighbours: int = 3, candidates: int = 4096):
        super().__init__(spec)
        check_range("curiosity.neighbours", neighbours, "[1, inf)", whole=True)
        check_range("curiosity.candidates", candidates, "[2, inf)", whole=True)
        self.features = RandomFeatures(spec, dim=dim)
        self.neighbours, self.candidates = neighbours, candidates

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        phi, mask = self.features.update_and_encode(roll)[:, 1:], roll.new_steps(roll.mask)
        reward = torch.zeros_like(phi[..., 0])
        reward[mask] = torch.log1p(kth_distances(phi[mask].float(), self.neighbours, self.candidates)).to(reward.dtype)
        return reward


def kth_distances(x: Tensor, k: int, candidates: int) -> Tensor:
    """Return the distance of each row of x (n, D) to its k-th nearest other row, of at most `candidates`: (n,).

    With k other rows or fewer, it is the largest distance; a single row has 0.
    """
    n = len(x)
    if n < 2:
        return x.new_zeros(n)
    chosen = torch.linspace(0, n - 1, min(n, candidates), device=x.device).round().long()
    parts = []
    for first in range(0, n, ROWS):
        rows = torch.arange(first, min(first + ROWS, n), device=x.device)
        d = torch.cdist(x[rows], x[chosen], compute_mode="donot_use_mm_for_euclid_dist")
        d = d.masked_fill(rows[:, None] == chosen, torch.inf).topk(min(k, len(chosen)), largest=False).values
        parts.append(torch.where(d.isfinite(), d, 0.0).max(-1).values)
    return torch.cat(parts)
