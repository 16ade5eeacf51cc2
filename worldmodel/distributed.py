"""The ranks that train together: what they sum, and how they part."""

from __future__ import annotations

import atexit
import gc

import torch.distributed as dist
import torch.distributed.nn  # noqa: F401 - later, its default arguments would hold the group for good
from torch import Tensor


def sum_over_ranks(x: Tensor) -> Tensor:
    """Sum a statistic over all ranks in place; on one rank, the same tensor."""
    if world_size() > 1:
        dist.all_reduce(x)
    return x


def world_size() -> int:
    """Number of ranks that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def part_at_exit() -> None:
    """End the threads of gloo while the interpreter is whole.

    One that still holds a tensor when Python is torn down aborts its process (exit code 134), about once in a hundred
    runs that were done. Lightning parts ranks by itself only where they talk through NCCL.
    """
    atexit.register(_part)


def _part() -> None:
    gc.collect()  # a trainer's cycles hold the group, and its threads end with the last who does
    if dist.is_initialized():
        dist.destroy_process_group()
