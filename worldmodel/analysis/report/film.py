"""Pictures from numbers, and films from pictures."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path

import matplotlib
import numpy as np
from torch import Tensor


def coloured(name: str, x: Tensor) -> np.ndarray:
    """Numbers from 0 to 1 (*lead) -> (*lead, 3) uint8 of a colour map of matplotlib."""
    return matplotlib.colormaps[name](x.cpu().numpy(), bytes=True)[..., :3]


def grid_tiles(codes: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """Symbols (*lead, cells, C) of views of this shape -> a cell's first as its colour: (*lead, h, w, 3) uint8."""
    size = tuple(shape[:2]) if len(shape) == 3 else (1, -1)
    return coloured("tab20", codes[..., 0].unflatten(-1, size).transpose(-1, -2) / 19.99)


def encode(frames: list[np.ndarray], fps: int = 10) -> str:
    """Pictures (H, W, 3) uint8 -> an mp4, base64."""
    import imageio.v3 as iio

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        iio.imwrite(path, np.stack(frames), fps=fps, codec="libx264", macro_block_size=2)
        return base64.b64encode(path.read_bytes()).decode()
