"""Masked means over all ranks, the reduction of every loss."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.distributed import sum_over_ranks, world_size


def masked_means(losses: dict[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
    """Return the mean of each loss (B, T) over the steps where mask (B, T) is True, scalars by name.

    The sum is divided by the mean count per rank, so that the average of the gradients over ranks (DDP) is the gradient
    of the mean over the whole batch, even if the counts differ between ranks.
    """
    count = (sum_over_ranks(mask.sum().float()) / world_size()).clamp_min(1.0)
    return {key: torch.where(mask, x, 0.0).sum() / count for key, x in losses.items()}


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of x (B, T) over the steps where mask (B, T) is True; see `masked_means`."""
    return masked_means({"": x}, mask)[""]
