"""Files that appear under their name only when they are whole."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO


def atomic_write(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Have `write` fill a file beside `path`, put it on the disk, and rename it.

    A crash at any moment, of the process or the machine, leaves the old file or the new one. Raises OSError, with the
    old file intact and nothing else left, where the disk is full or read-only.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def alias(source: Path, path: Path) -> None:
    """A second name for a file that is replaced and never written to again; it takes no space where links exist."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    try:
        os.link(source, part)
    except OSError:
        with source.open("rb") as file:
            return atomic_write(path, lambda new: shutil.copyfileobj(file, new))
    os.replace(part, path)
    _sync_folder(path.parent)


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write `data` in one step that can't leave half a file. ValueError for nan and infinities, which JSON lacks."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write `text` in one step that can't leave half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text)
    os.replace(part, path)


def _sync_folder(folder: Path) -> None:
    """A rename lasts once its folder is on the disk; some file systems can't be asked for it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)
