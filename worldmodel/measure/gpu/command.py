"""GPU command: `python -m worldmodel.gpu scale=1.0 out=docs/results parts=[memory,loop]`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from worldmodel.errors import ConfigError
from worldmodel.measure.gpu.memory import acting, memory
from worldmodel.measure.gpu.runs import learning, loop
from worldmodel.measure.gpu.sameness import ranks_there, repeated_there
from worldmodel.measure.runner import Part, measure

MEASUREMENTS: dict[str, Part] = {
    "memory": memory,
    "acting": acting,
    "loop": loop,
    "learning": learning,
    "repeated": repeated_there,
    "ranks": ranks_there,
}


def measure_gpu(parts: list[str] | None, scale: float, out: Path) -> dict[str, Any]:
    """Run the parts (None: all) at a scale of their sizes; write and return gpu.json. Raises ConfigError."""
    if not torch.cuda.is_available():
        raise ConfigError("device=cuda: torch finds no GPU on this machine")
    return measure("gpu", "On a GPU", MEASUREMENTS, parts, scale, out)
