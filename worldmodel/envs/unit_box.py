"""Unit space of continuous actions, and its affine map to the bounds of an engine's Box."""

from __future__ import annotations

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

LIMIT = 1e9
"""Bounds of this magnitude or more, such as the limits of int32, count as missing."""


class UnitBox(Box):
    """Box in which the policy acts, in place of an engine's own Box `raw`; float32 of the same shape.

    A dimension with two finite bounds is [-1, 1], which is mapped affinely to [low, high]. With `low` alone it is
    [-1, inf), where -1 is `low` and the slope is 1; with `high` alone it is (-inf, 1], where 1 is `high`. A dimension
    without bounds is the identity.

    step: (*shape) float64, distance in unit space between neighbouring whole numbers of an integer Box, which lie at
        -1 + k step; 0 for real numbers.
    """

    def __init__(self, raw: Box):
        self.raw = raw
        low, high = (np.asarray(bound, np.float64) for bound in (raw.low, raw.high))
        below, above = np.abs(low) < LIMIT, np.abs(high) < LIMIT  # which bounds exist; False for infinite ones
        low, high = np.where(below, low, 0.0), np.where(above, high, 0.0)
        both = below & above
        self._slope = np.where(both, (high - low) / 2, 1.0)
        self._centre = np.select([both, below, above], [(low + high) / 2, low + 1, high - 1], 0.0)
        whole = np.issubdtype(raw.dtype, np.integer)
        inverse = np.divide(1.0, self._slope, out=np.zeros(raw.shape), where=self._slope > 0)
        self.step: NDArray[np.float64] = inverse if whole else np.zeros(raw.shape)
        super().__init__(
            np.where(below, -1.0, -np.inf).astype(np.float32),
            np.where(above, 1.0, np.inf).astype(np.float32),
            raw.shape,
            np.float32,
        )

    def to_raw(self, act: NDArray[np.float32]) -> NDArray[np.generic]:
        """Map unit actions (*lead, *shape) to the engine's units and dtype, within its bounds."""
        raw = self._centre + self._slope * act.astype(np.float64)
        if np.issubdtype(self.raw.dtype, np.integer):
            raw = np.rint(raw)
        return np.clip(raw, self.raw.low, self.raw.high).astype(self.raw.dtype)

    def to_unit(self, raw: NDArray[np.generic]) -> NDArray[np.float32]:
        """Map actions in the engine's units (*lead, *shape) to unit actions, within the bounds; see `to_raw`."""
        slope = np.where(self._slope > 0, self._slope, 1.0)
        unit = ((raw.astype(np.float64) - self._centre) / slope).astype(np.float32)
        return np.clip(unit, self.low, self.high)
