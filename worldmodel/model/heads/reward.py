"""Categorical prediction of the extrinsic reward."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldmodel.distributed import max_over_ranks

BINS = 65
LARGEST = 1e6  # reward of the outermost bins


class RewardHead(nn.Module):
    """Distribution of the extrinsic reward over bins whose distance grows with the reward, from -1e6 to 1e6.

    The bins are equidistant in sign(x) log(1 + |x|) (Hafner et al. 2023, arXiv 2301.04104). A reward between two bins
    is a mixture of both with the reward as its mean, so the predicted mean is that of rewards, not of their logarithms:
    a reward of 100 with probability 0.01 is predicted as 1. Only bins between the smallest and the largest reward that
    a rollout has shown have a probability, since a tiny one of a million would dominate the mean.
    """

    bins: Tensor  # (BINS,) rewards, ascending
    first: Tensor  # scalar, int64: index of the first bin that may occur
    last: Tensor  # scalar, int64

    def __init__(self, width: int):
        super().__init__()
        self.out = nn.Linear(width, BINS)
        edge = torch.tensor(LARGEST, dtype=torch.float64).log1p()
        grid = torch.linspace(-1, 1, BINS, dtype=torch.float64) * edge
        self.register_buffer("bins", (grid.sign() * grid.abs().expm1()).float(), persistent=False)
        self.register_buffer("first", torch.tensor(BINS // 2))
        self.register_buffer("last", torch.tensor(BINS // 2))

    def forward(self, u: Tensor) -> Tensor:
        """Return the log-probabilities of the bins (*lead, BINS) from u (*lead, width)."""
        index = torch.arange(BINS, device=u.device)
        return self.out(u).masked_fill((index < self.first) | (index > self.last), -torch.inf).log_softmax(-1)

    def mean(self, logp: Tensor) -> Tensor:
        """Return the expected reward (*lead) from log-probabilities (*lead, BINS)."""
        return logp.exp() @ self.bins

    def nll(self, logp: Tensor, rew: Tensor) -> Tensor:
        """Return the cross-entropy in nats: logp (*lead, BINS), rew (*lead) -> (*lead).

        Rewards beyond those that were seen count as the nearest bin.
        """
        rew = rew.clamp(self.bins[self.first], self.bins[self.last])
        above = torch.searchsorted(self.bins, rew).clamp_min(1)
        low, high = self.bins[above - 1], self.bins[above]
        share = (rew - low) / (high - low)
        pair = logp.gather(-1, torch.stack([above - 1, above], -1))
        weight = torch.stack([1 - share, share], -1)
        return -torch.where(weight > 0, pair * weight, 0.0).sum(-1)

    @torch.no_grad()
    def observe(self, rew: Tensor, mask: Tensor) -> None:
        """Extend the range of bins to the rewards (*lead) where mask (*lead) is True, on all ranks."""
        seen = torch.where(mask, rew, 0.0)
        top = torch.searchsorted(self.bins, seen.max().clamp_max(LARGEST))
        bottom = torch.searchsorted(self.bins, seen.min().clamp_min(-LARGEST), right=True) - 1
        ends = max_over_ranks(torch.stack([top, -bottom]))
        self.last.copy_(torch.maximum(self.last, ends[0]))
        self.first.copy_(torch.minimum(self.first, -ends[1]))
