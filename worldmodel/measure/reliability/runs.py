"""Small runs in processes that can be killed, and fingerprints of their final state."""

from __future__ import annotations

import atexit
import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from worldmodel import train
from worldmodel.training.checkpoint import read_checkpoint
from worldmodel.training.compose import compose_config

SMALL = [
    *("env.num_envs=4", "env.sticky=0.25", "encoder.dim=16"),
    *("data.rollout_length=8", "data.context=4", "data.minibatches=2", "data.epochs=2", "data.model_batch=null"),
    *("data.replay_batch=1", "data.replay_capacity=8", "memory.dim=16", "memory.depth=1", "memory.heads=2"),
    *("model.hidden=16", "policy.actor.hidden=16", "threads=1", "video=false", "logger=none", "name=small"),
]
UPDATE = 32  # environment steps
SHIPPED = ["threads=1", "video=false", "logger=none", "name=shipped"]  # the default configuration at its full size


def small_config(*overrides: str) -> DictConfig:
    """Return the configuration of a small run."""
    cfg = compose_config([*SMALL, "run_dir=unused", *overrides])
    OmegaConf.resolve(cfg)
    return cfg


def small_run(run_dir: Path, updates: int = 8, *overrides: str) -> Path:
    """Train a small run to its end, in a separate process, and return its folder. Raises RuntimeError if it fails."""
    finish(start(train_small, run_dir, updates, *overrides), run_dir)
    return run_dir


def finish(process: BaseProcess, run_dir: Path) -> None:
    """Wait for a run. Raises RuntimeError if it fails."""
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{run_dir}: exit code {process.exitcode}, see {run_dir}.log")


def start(target: Callable[..., None], *args: Any) -> BaseProcess:
    """Start a process that shares only imported modules with this one.

    It is quick to start, and killing it does not affect others.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["worldmodel.measure.reliability.runs"])
    os.environ["OMP_NUM_THREADS"] = "1"
    process = context.Process(target=target, args=args)
    process.start()
    atexit.register(process.kill)  # after a signal; otherwise multiprocessing would wait for it
    return process


def train_small(run_dir: Path, updates: int, *overrides: str) -> None:
    """Run the command line of a small run; see `train_run`."""
    train_run(run_dir, SMALL, [*overrides, f"total_steps={updates * UPDATE}"])


def train_run(run_dir: Path, first: list[str], overrides: list[str]) -> None:
    """Run a command line, with the overrides `first` only if it does not resume an interrupted run.

    Its output goes to a file beside its folder.
    """
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(f"{run_dir}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    goal = [f"run_dir={run_dir}", "checkpoint=auto"]
    going_on = (run_dir / "checkpoints" / "last.ckpt").exists()
    sys.argv = ["worldmodel.train", *([] if going_on else first), *overrides, *goal]
    train.main()


def fingerprint(run_dir: Path) -> str:
    """Return a hash of the weights, the statistics and the optimiser's moments in the last checkpoint."""
    saved = read_checkpoint(run_dir / "checkpoints" / "last.ckpt")
    digest = hashlib.sha256()
    for path, leaf in sorted(_leaves({k: saved[k] for k in ("state_dict", "optimizer_states")}, "")):
        digest.update(path.encode())
        digest.update(leaf.contiguous().numpy().tobytes() if isinstance(leaf, torch.Tensor) else repr(leaf).encode())
    return digest.hexdigest()


def record(run_dir: Path) -> dict[str, Any]:
    """Return the content of run.json."""
    return json.loads((run_dir / "run.json").read_text())


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict | list | tuple):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(value, f"{path}.{key}")
    else:
        yield path, node
