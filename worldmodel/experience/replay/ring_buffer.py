"""Records in memory: a ring of the newest ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worldmodel.experience.replay.records import records_of, sequences_of
from worldmodel.types import Sequences


class RingBuffer:
    """The last `capacity` records; memory is committed as it fills."""

    def __init__(self, capacity: int):
        self.capacity, self.length = capacity, 0
        self.ring: np.ndarray = np.empty(0)

    def begin(self, dtype: np.dtype) -> None:
        """Create an empty ring for records of `dtype`."""
        self.ring, self.length = np.empty(self.capacity, dtype), 0

    @property
    def dtype(self) -> np.dtype:
        return self.ring.dtype

    def append(self, records: NDArray[np.void]) -> None:
        """Write (n,) records over the oldest ones."""
        numbers = self.length + np.arange(len(records))
        self.ring[numbers[-self.capacity :] % self.capacity] = records[-self.capacity :]
        self.length += len(records)

    def __getitem__(self, numbers: NDArray[np.int64]) -> NDArray[np.void]:
        """Return the records of these numbers (n,), counted from the first record ever."""
        return self.ring[numbers % self.capacity]

    def state_dict(self) -> dict[str, Any]:
        """Return all records as the tensors of sequences, the oldest first."""
        if not self.length:
            return {}
        numbers = np.arange(max(0, self.length - self.capacity), self.length)
        found = sequences_of(self[numbers], 0, torch.device("cpu"))
        return found.tensors() | {"first": int(numbers[0])}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if not state:
            return
        records = records_of(Sequences(**{k: v for k, v in state.items() if k != "first"}, num_new=0))
        self.begin(records.dtype)
        self.length = state.get("first", 0)
        self.append(records)

    def close(self) -> None:
        """Close the store, which holds no resources."""
