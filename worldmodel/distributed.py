"""Sums over the ranks of a distributed run, and the end of its process group."""

from __future__ import annotations

import atexit
import gc
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn
from torch import Tensor


def sum_over_ranks(x: Tensor) -> Tensor:
    """Sum a statistic over all ranks in place; on one rank, return it unchanged."""
    if world_size() > 1:
        dist.all_reduce(x)
    return x


def max_over_ranks(x: Tensor) -> Tensor:
    """Take the largest value over all ranks in place; on one rank, return it unchanged."""
    if world_size() > 1:
        dist.all_reduce(x, dist.ReduceOp.MAX)
    return x


def differentiable_sum(x: Tensor) -> Tensor:
    """Sum x over all ranks; on one rank, return x.

    The backward pass sums the gradients of all ranks. A loss that every rank computes from such sums has therefore,
    after DDP's average over ranks, the gradient of one rank with the whole batch. Without gradients the ranks exchange
    nothing, so that one rank can evaluate alone.
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


def gather_over_ranks(own: Any) -> list[Any]:
    """Return the plain data of every rank, in the order of the ranks."""
    gathered: list[Any] = [own]
    if world_size() > 1:
        gathered *= world_size()
        dist.all_gather_object(gathered, own)
    return gathered


def rank() -> int:
    """Return the number of this rank, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def world_size() -> int:
    """Return the number of ranks that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def part_at_exit() -> None:
    """Destroy the process group at exit, which ends gloo's threads while the interpreter is intact.

    A thread that still holds a tensor when Python is torn down aborts its process (exit code 134), about once in a
    hundred completed runs. Lightning destroys the group itself only for NCCL.
    """
    atexit.register(_part)


def _part() -> None:
    gc.collect()  # a trainer's reference cycles hold the group, and its threads end with the last reference
    if dist.is_initialized():
        dist.destroy_process_group()
