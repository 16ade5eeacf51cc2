"""Formats of numbers in the cells of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def format_cell(value: Any) -> str:
    """Format a number, an interval or a word; None is a dash."""
    if value is None:
        return "–"
    if isinstance(value, list | tuple):
        return " … ".join(format_cell(x) for x in value)
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}" if value == 0 or 0.01 <= abs(value) < 1e5 else f"{value:.2e}"


def format_interval(middle: float, low: float, high: float, digits: int = 3) -> str:
    """Format `middle [low, high]`."""
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def format_mean_range(values: Sequence[float] | np.ndarray, digits: int = 3) -> str:
    """Format the mean of several seeds and their range: `mean [lowest, highest]`."""
    return format_interval(float(np.mean(values)), min(values), max(values), digits)
