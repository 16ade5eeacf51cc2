"""Reliability command: `python -m worldmodel.reliability scale=1.0 out=docs/results parts=[killed,saves]`."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from functools import partial, update_wrapper
from pathlib import Path
from typing import Any

from worldmodel.measure.reliability.age import aged
from worldmodel.measure.reliability.faults import faults
from worldmodel.measure.reliability.kills import killed, saves, shipped, terminated
from worldmodel.measure.reliability.malformed import malformed
from worldmodel.measure.reliability.population import evolved
from worldmodel.measure.reliability.ranks import ranks
from worldmodel.measure.reliability.repeat import repeated
from worldmodel.measure.runner import Part, measure

MEASUREMENTS: dict[str, Part] = {
    "killed": killed,
    "shipped": shipped,
    "terminated": terminated,
    "saves": saves,
    "faults": faults,
    "malformed": malformed,
    "repeated": repeated,
    "ranks": ranks,
    "age": aged,
    "population": evolved,
}


def reliability(
    scale: float, out: Path, parts: list[str] | None = None, folders: list[str] | None = None
) -> dict[str, Any]:
    """Run the parts (None: all) at a scale of their numbers of trials; write and return reliability.json.

    folders: folders on the file systems to save on. None: the temporary folder, and /dev/shm if it is on another one.

    Raises ConfigError.
    """
    with ExitStack() as stack:
        places = [Path(stack.enter_context(tempfile.TemporaryDirectory(dir=x))) for x in folders or usual_folders()]
        there = {"saves": update_wrapper(partial(saves, folders=places), saves)}
        return measure("reliability", "Reliability", MEASUREMENTS | there, parts, scale, out)


def usual_folders() -> list[str]:
    """Return the temporary folder, and /dev/shm (tmpfs on Linux) if it exists and is on another file system."""
    temporary, memory = tempfile.gettempdir(), "/dev/shm"
    other = os.access(memory, os.W_OK) and os.stat(memory).st_dev != os.stat(temporary).st_dev
    return [temporary, *([memory] if other else [])]
