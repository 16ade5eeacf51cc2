"""Checks of the arguments of an evaluation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from worldmodel.errors import ConfigError


def check_list(key: str, value: Any, allowed: str) -> None:
    """Raise ConfigError unless `value` is a list with entries."""
    if not isinstance(value, list | tuple) or not value:
        raise ConfigError(f"{key}={value}: allowed is a list of {allowed}, not an empty one")


def check_parts(parts: Any, known: Collection[str]) -> None:
    """Raise ConfigError unless `parts` is a list of known names."""
    allowed = ", ".join(known)
    check_list("parts", parts, allowed)
    if unknown := [part for part in parts if part not in known]:
        raise ConfigError(f"parts={unknown[0]}: no such part, allowed are {allowed}")


def checkpoints(value: Any) -> list[str]:
    """Return one path, or a list of different paths, as a list. Raises ConfigError."""
    paths = [value] if isinstance(value, str | Path) else value
    check_list("checkpoint", paths, "paths")
    paths = [str(path) for path in paths]
    if len(set(paths)) < len(paths):
        raise ConfigError(f"checkpoint={','.join(paths)}: allowed are different paths")
    return paths


def make_folder(path: Path) -> None:
    """Create the output folder. Raises ConfigError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"out={path}: cannot be made ({error.strerror})") from None


def pick_device(name: str) -> torch.device:
    """Return the torch device of a name; `auto` is cuda where available. Raises ConfigError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={name}: not available here ({str(error).splitlines()[0]})") from None


def labels(paths: Sequence[str]) -> list[str]:
    """Return short distinct names of checkpoints: the last parts of their paths, as many as needed."""
    for count in range(1, 1 + max(len(Path(p).parts) for p in paths)):
        names = ["/".join(Path(p).parts[-count:]) for p in paths]
        if len(set(names)) == len(names):
            return names
    return list(paths)
