"""Pictures of numbers and of symbols."""

from __future__ import annotations

import matplotlib
import numpy as np
from torch import Tensor


def coloured(name: str, x: Tensor) -> np.ndarray:
    """Colours (*lead, 3) uint8 of numbers from 0 to 1 (*lead), by a colour map of matplotlib."""
    return matplotlib.colormaps[name](x.cpu().numpy(), bytes=True)[..., :3]


def grid_tiles(codes: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """Tiles (*lead, h, w, 3) uint8 of symbols (*lead, cells, C): the first symbol of a cell sets its colour.

    `shape` is that of the observation.
    """
    size = tuple(shape[:2]) if len(shape) == 3 else (1, -1)
    return coloured("tab20", codes[..., 0].unflatten(-1, size).transpose(-1, -2) / 19.99)
