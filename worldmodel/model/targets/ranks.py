"""Differentiable sums over ranks."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def differentiable_sum(x: Tensor) -> Tensor:
    """Sum x over all ranks; on one rank, return x.

    The backward pass sums the gradients of all ranks. So a loss that every rank computes from such sums has, after
    DDP's average over ranks, the gradient of one rank with the whole batch. Without gradients nothing is exchanged, so
    that one rank may evaluate alone.
    """
    if torch.is_grad_enabled() and dist.is_available() and dist.is_initialized():
        return _AllReduce.apply(x)
    return x


class _AllReduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _AllReduce.apply(grad)
