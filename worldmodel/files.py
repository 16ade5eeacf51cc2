"""Atomic writes: files that appear under their name only when they are complete."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO


def atomic_write(path: Path, write: Callable[[BinaryIO], Any], suffix: str = "part") -> None:
    """Call `write` on a file beside `path`, flush it to disk, and rename it to `path`.

    A crash of the process or the machine at any moment leaves either the old file or the new one. If the disk is full
    or read-only, raises OSError with the old file intact and no temporary file left. If several processes may write
    the file, each needs another `suffix` of the file beside it.
    """
    part = path.with_name(f"{path.name}.{suffix}")
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def alias(source: Path, path: Path) -> None:
    """Give a file a second name, as a hard link where the file system has them, else as a copy.

    The file must only ever be replaced, never modified in place.
    """
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    try:
        os.link(source, part)
    except OSError:
        with source.open("rb") as file:
            return atomic_write(path, lambda new: shutil.copyfileobj(file, new))
    os.replace(part, path)
    sync_folder(path.parent)


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write `data` as JSON to `path` atomically. Raises ValueError for nan and infinities, which JSON lacks."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, lambda file: file.write(text.encode()), f"{os.getpid()}.part")


def write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write rows as CSV to `path` atomically, creating its folder."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, lambda file: file.write(text.getvalue().encode()), f"{os.getpid()}.part")


def sync_folder(folder: Path) -> None:
    """Flush a folder to disk, which makes a rename durable; some file systems do not support it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)
