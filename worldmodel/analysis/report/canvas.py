"""Matplotlib figures without pyplot: no global state, no display."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas


def canvas(panels: int = 1, width: float = 4.2, height: float = 3.0) -> tuple[Canvas, list[Any]]:
    """Return a figure of panels in one row, and their axes. Width and height are those of a panel, in inches."""
    drawing = Canvas(figsize=(width * panels, height), layout="constrained")
    axes = drawing.subplots(1, panels, squeeze=False)[0]
    for axis in axes:
        axis.grid(alpha=0.3)
    return drawing, list(axes)


def panels(count: int, height: float = 3.6) -> tuple[Canvas, np.ndarray]:
    """Return a figure with `count` axes in rows of two, each row `height` inches high, and these axes."""
    columns = min(max(count, 1), 2)
    rows = -(-max(count, 1) // columns)
    figure = Canvas(figsize=(6.5 * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[count:]:
        axis.set_axis_off()
    return figure, axes[:count]
