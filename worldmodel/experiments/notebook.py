"""Shared functions of the notebooks: their scale, and training of their agents."""

from __future__ import annotations

import hashlib
import logging
import os
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TypeVar

from omegaconf import OmegaConf

from worldmodel.errors import ConfigError
from worldmodel.training.compose import compose_config
from worldmodel.training.run import DONE, train

SCALES = ("full", "small")
TINY = (
    *(
        "env.num_envs=4",
        "data.minibatches=2",
        "data.model_every=1",
        "data.rollout_length=32",
        "data.context=16",
        "data.epochs=1",
    ),
    *("data.replay_batch=0", "memory.dim=16", "memory.heads=2", "memory.depth=1", "model.hidden=16"),
    *("policy.actor.hidden=16", "target.dim=8", "encoder.dim=16"),
)
"""Overrides for an agent that trains in seconds and learns little."""

T = TypeVar("T")


def scale() -> str:
    """Value of the environment variable WORLDMODEL_SCALE, by default `full`. Raises ConfigError unless in `SCALES`."""
    found = os.environ.get("WORLDMODEL_SCALE", "full")
    if found not in SCALES:
        raise ConfigError(f"WORLDMODEL_SCALE={found}: allowed are {', '.join(SCALES)}")
    return found


def sized(full: T, small: T) -> T:
    """Return the value for the present scale."""
    return {"full": full, "small": small}[scale()]


def trained(*overrides: str, folder: str | Path = "runs") -> Path:
    """Train as `worldmodel.train` with these overrides, and return the last checkpoint.

    The run has one thread and no film; at small scale the agent is `TINY`. A finished run of the same configuration in
    `folder` is reused. The output of training is in log.txt in the run's folder.

    Raises:
        ConfigError: for bad input.
    """
    cfg = compose_config(("video=false", "logger=none", "threads=1", *sized((), TINY), *overrides))
    key = hashlib.sha256(OmegaConf.to_yaml(cfg, resolve=True).encode()).hexdigest()[:8]
    cfg.overwrite = True  # an interrupted run starts from the beginning
    cfg.run_dir = str(Path(folder) / f"{cfg.name}_{key}")
    run_dir = Path(cfg.run_dir)
    checkpoint = run_dir / "checkpoints" / "last.ckpt"
    if not ((run_dir / DONE).exists() and checkpoint.exists()):
        run_dir.mkdir(parents=True, exist_ok=True)
        for library in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(library).setLevel(logging.ERROR)
        with (run_dir / "log.txt").open("w") as log, redirect_stdout(log), redirect_stderr(log):
            train(cfg)
    return checkpoint
