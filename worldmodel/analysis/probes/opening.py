"""Code of an episode's first observation, which no transition predicts, by counts of earlier ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from worldmodel.analysis.probes.compressor import Send


class Opening:
    """Adaptive counts, cell by cell in reading order, of cells (height, width) of components of these `sizes`.

    A cell's first component is predicted from the cells to its left and above it, each later one from the earlier
    components of its cell. Counts are shared by all cells and begin at `alpha` (1/2 is KT's; less suits contexts with
    few successors). Sender and receiver update the same counts.
    """

    def __init__(self, sizes: Sequence[int], height: int, width: int, alpha: float = 0.05):
        self.sizes, self.height, self.width, self.alpha = tuple(sizes), height, width, alpha
        self.counts: dict[tuple[int, ...], np.ndarray] = {}

    def send(self, send: Send, streams: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Send the first observations of M `streams`, at `columns` (cells, C) of a row: codes (M, cells, C)."""
        codes = np.zeros((len(streams), self.height, self.width, len(self.sizes)), dtype=np.int64)
        outside = np.full(len(streams), -1)
        cells = np.full((len(streams), self.height, self.width), -1)  # a cell as one number
        for i in range(self.height):
            for j in range(self.width):
                given = [cells[:, i, j - 1] if j else outside, cells[:, i - 1, j] if i else outside]
                for c, size in enumerate(self.sizes):
                    keys = [(c, *key) for key in np.stack(given, 1).tolist()]
                    counts = [self.counts.setdefault(key, np.full(size, self.alpha)) for key in keys]
                    probs = np.stack([x / x.sum() for x in counts])
                    codes[:, i, j, c] = send("first observations", streams, columns[i * self.width + j, c], probs)
                    for x, code in zip(counts, codes[:, i, j, c], strict=True):
                        x[code] += 1
                    given = [codes[:, i, j, earlier] for earlier in range(c + 1)]
                cells[:, i, j] = np.ravel_multi_index(tuple(codes[:, i, j].T), self.sizes)
        return codes.reshape(len(streams), -1, len(self.sizes))
