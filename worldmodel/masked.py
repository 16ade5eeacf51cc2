"""The masked mean that every loss goes through."""

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
