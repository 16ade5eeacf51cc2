"""Functions that run on two ranks."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import torch.multiprocessing as mp

import worldmodel.envs.engines.workers  # noqa: F401  # its fork server has imported torch


def free_port() -> int:
    """A port on which no process of this machine listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def run_on_two_ranks(work: Callable[..., None], *args: Any) -> None:
    """Call `work(rank, *args)` in two processes and wait for both."""
    mp.start_processes(work, args=args, nprocs=2, start_method="forkserver")
