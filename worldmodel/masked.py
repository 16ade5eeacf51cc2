"""Losses of the policy, and the masked mean that every loss goes through."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.distributed import sum_over_ranks, world_size


def masked_means(losses: dict[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
    """Mean of each loss (B, T) where mask, counted over all ranks.

    The count is the mean count per rank, so that the average of gradients over ranks (DDP) is the gradient of the
    mean over the whole batch, however unevenly the masks fall.
    """
    count = (sum_over_ranks(mask.sum().float()) / world_size()).clamp_min(1.0)
    return {key: torch.where(mask, x, 0.0).sum() / count for key, x in losses.items()}


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """The same of one x (B, T)."""
    return masked_means({"": x}, mask)[""]


def clipped_policy_loss(logp: Tensor, old_logp: Tensor, adv: Tensor, clip: float) -> Tensor:
    """Unreduced PPO surrogate (Schulman et al. 2017, eq. 7), negated: (B, T)."""
    ratio = torch.exp(logp - old_logp)
    return -torch.minimum(ratio * adv, ratio.clamp(1 - clip, 1 + clip) * adv)


def normalise_advantage(adv: Tensor, mask: Tensor, floor: float) -> Tensor:
    """adv (B, T) about its mean over real steps of all ranks, in units of its std or of `floor` if that is larger.

    Without the floor, a reward that is never seen lets the noise of the value head set the step (entropy then
    drifts down and success with it).
    """
    real = mask.to(adv.dtype)
    n = sum_over_ranks(real.sum()).clamp_min(1.0)
    mean = sum_over_ranks((adv * real).sum()) / n
    var = sum_over_ranks(((adv - mean).square() * real).sum()) / n
    return (adv - mean) / var.sqrt().clamp_min(floor) * real
