"""The part of an observation that shows noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from encoders.image import channels_last


class Screen:
    """Patch of one plain observation, and the random values that are valid there.

    A view, that is (H, W), (H, W, C) or (C, H, W), has a patch of `size` of its height and width, by default in the
    lower right corner. A vector has a patch of its last entries. A Discrete value is all patch. Random values are
    uniform over the values of the space, or over 0 to values[c] - 1 in channel c. In an unbounded space they are
    standard normal.

    Raises ValueError for `values` that do not fit the space.
    """

    def __init__(self, space: gym.Space, size: float, values: Sequence[int] | None = None):
        shape = space.shape
        self.is_view, self.dtype = len(shape) in (2, 3), space.dtype
        channel = (2 if channels_last(shape) else 0) if len(shape) == 3 else None
        self._axes = [i for i in range(len(shape)) if i != channel]  # the axes along which the patch is a part
        self.whole = [shape[i] for i in self._axes]
        self.part = [math.ceil(size * n) for n in self.whole]
        corner = self._slices(np.subtract(self.whole, self.part))
        self._low, self._high, self._normal = None, None, False
        if isinstance(space, gym.spaces.Box):
            self._low, self._high = space.low[corner], space.high[corner]
            self._normal = not np.all(np.abs([self._low, self._high]) < 1e6)  # the limits of a dtype are not bounds
            if values is not None:
                if channel is None or len(values) != shape[channel] or np.min(values) < 1:
                    raise ValueError(
                        f"env.tv_values={list(values)}: allowed for {space} is null or one count a channel"
                    )
                along = np.asarray(values).reshape([-1 if i == channel else 1 for i in range(len(shape))])
                self._low, self._high = np.zeros_like(self._low), np.broadcast_to(along - 1, self._high.shape)
        else:
            counts = np.asarray(space.nvec if isinstance(space, gym.spaces.MultiDiscrete) else space.n)
            self._low, self._high = np.zeros_like(counts[corner]), counts[corner] - 1

    def draw(self, generator: np.random.Generator, count: int) -> Tensor:
        """Draw `count` patches of random values: (count, *patch shape)."""
        shape = (count, *self._low.shape)
        if np.issubdtype(self.dtype, np.integer):
            drawn = generator.integers(self._low, self._high, shape, dtype=self.dtype, endpoint=True)
        elif self._normal:
            drawn = generator.standard_normal(shape, dtype=np.float32)
        else:
            drawn = generator.uniform(self._low, self._high, shape).astype(self.dtype)
        return torch.from_numpy(np.asarray(drawn))

    def show(self, obs: Tensor, rows: Tensor, patch: Tensor) -> None:
        """Write patches (R, *patch shape) into rows (R,) of an observation (N, *shape), in place."""
        obs[(rows, *self._slices(np.subtract(self.whole, self.part)))] = patch

    def show_at(self, obs: Tensor, corners: np.ndarray, patch: Tensor) -> None:
        """Write patches (N, *patch shape) at corners (N, axes) of an observation (N, *shape), in place."""
        for i, corner in enumerate(corners):
            obs[(i, *self._slices(corner))] = patch[i]

    def _slices(self, corner: np.ndarray) -> tuple[slice, ...]:
        dims = max(self._axes, default=-1) + 1
        found = [slice(None)] * dims
        for axis, start, part in zip(self._axes, corner, self.part, strict=True):
            found[axis] = slice(int(start), int(start) + part)
        return tuple(found)
