"""Draws in proportion to weights, in O(log n)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class SumTree:
    """Binary tree over `capacity` weights: the leaves are the weights, each node is the sum of its two children.

    Changing a weight and drawing one are walks between leaf and root, done for many at once. Sums are recomputed from
    the children, never updated by differences, so that rounding errors do not accumulate.
    """

    def __init__(self, capacity: int):
        self.depth = max(capacity - 1, 1).bit_length()
        self.leaves = 1 << self.depth
        self.capacity = capacity
        self.sums = np.zeros(2 * self.leaves)  # node i has the children 2 i and 2 i + 1; the root is 1

    def __getitem__(self, index: NDArray[np.int64]) -> NDArray[np.float64]:
        return self.sums[self.leaves + index]

    @property
    def total(self) -> float:
        return float(self.sums[1])

    def put(self, index: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
        """Set weights (n,) from 0 at index (n,); for a repeated index the last weight counts."""
        node = self.leaves + index
        self.sums[node] = weights
        for _ in range(self.depth):
            node = node >> 1
            self.sums[node] = self.sums[2 * node] + self.sums[2 * node + 1]

    def find(self, shares: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the indices (n,) at which the running sum of the weights reaches the given shares.

        shares: (n,) in [0, 1) of the total. An index of weight 0 is never returned.
        """
        left = shares * self.sums[1]
        node = np.ones(len(shares), dtype=np.int64)
        for _ in range(self.depth):
            node *= 2
            below = self.sums[node]
            right = (left >= below) & (self.sums[node + 1] > 0)
            left -= np.where(right, below, 0.0)
            node += right
        return node - self.leaves
