"""Reading checkpoints: plain data only, and a clear word when one doesn't fit."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from worldmodel.config import ConfigError


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a checkpoint to the CPU without executing anything in it. Raises ConfigError."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"checkpoint={path}: no such file")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise ConfigError(f"checkpoint={path}: not readable ({str(error).splitlines()[0][:120]})") from None
    if not isinstance(checkpoint, dict) or not {"state_dict", "config"} <= checkpoint.keys():
        raise ConfigError(f"checkpoint={path}: not a checkpoint of this project (needs state_dict and config)")
    return checkpoint


def fit_check(state: dict[str, torch.Tensor], module: nn.Module, path: str | Path) -> None:
    """Raises ConfigError unless `state` has exactly the module's tensors, names and shapes."""
    own = module.state_dict()
    for name in sorted(own.keys() | state.keys()):
        there, here = (tuple(d[name].shape) if name in d else "missing" for d in (state, own))
        if there != here:
            raise ConfigError(
                f"checkpoint={path}: of another architecture, {name} is {there} there and {here} in this configuration"
            )


def run_dir_of(path: str | Path) -> Path:
    """The run folder that a checkpoint belongs to: DIR of DIR/checkpoints/last.ckpt."""
    path = Path(path).resolve()
    return path.parent.parent if path.parent.name == "checkpoints" else path.parent
