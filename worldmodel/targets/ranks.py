"""Sums over ranks that gradients flow through."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def differentiable_sum(x: Tensor) -> Tensor:
    """Sum x over all ranks; on one rank, x.

    The backward pass sums the gradients of all ranks, so a loss that every rank computes from such sums has,
    in the average over ranks that DDP takes, the gradient of one rank with the whole batch. Without gradients
    nothing is exchanged: one rank may then evaluate alone.
    """
    if not (torch.is_grad_enabled() and dist.is_available() and dist.is_initialized()):
        return x
    from torch.distributed.nn.functional import all_reduce  # not in every build of torch

    return all_reduce(x)
