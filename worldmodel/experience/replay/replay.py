"""Replay of past sequences for the world model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldmodel.errors import UnwritableError
from worldmodel.experience.replay.disk import Disk
from worldmodel.experience.replay.priority import CuriousReplayPriority
from worldmodel.experience.replay.records import records_of, sequences_of
from worldmodel.experience.replay.ring_buffer import RingBuffer
from worldmodel.types import Sequences


class Replay:
    """The last `capacity` sequences, in CPU memory or in `folder`.

    They are drawn uniformly, in O(1), or by `priority`, in O(log capacity). They contain the fields of `Sequences`,
    none of a later stage, and all have the same number of new steps.
    """

    def __init__(self, capacity: int, priority: CuriousReplayPriority | None = None, folder: Path | None = None):
        self.capacity, self.priority = capacity, priority
        self.store: RingBuffer | Disk = RingBuffer(capacity) if folder is None else Disk(folder)
        self.dtype: np.dtype | None = None  # of the stored records
        self.num_new = 0  # T of the stored sequences
        self.pending: list[tuple[np.ndarray, Tensor]] = []  # numbers and their losses, not yet processed
        self.warned = False
        if priority is not None:
            priority.reset(capacity)

    def __len__(self) -> int:
        """Return the number of sequences that can be drawn."""
        return 0 if self.dtype is None else min(self.store.length, self.capacity)

    @property
    def on_disk(self) -> bool:
        return isinstance(self.store, Disk)

    def add(self, seq: Sequences) -> None:
        """Store each of the B sequences."""
        if self.capacity == 0:
            return
        records = records_of(seq)
        if records.dtype != self.dtype:
            self.dtype = records.dtype
            self.store.begin(self.dtype)
        self.num_new = seq.num_new
        self._update_pending()  # before a slot is reused
        numbers = self.store.length + np.arange(len(records))
        try:
            self.store.append(records)
        except OSError as error:
            if isinstance(self.store, Disk) and not len(self):
                reason = f"write failed ({error.strerror}) before the first sequence"
                raise UnwritableError(f"data.replay_dir={self.store.folder}: {reason}") from None
            # training continues with a full disk
            if not self.warned:
                self.warned = True
                message = f"data.replay_dir: write failed ({error.strerror}); dropping rollouts until one succeeds"
                print(f"warning: {message}", file=sys.stderr, flush=True)
            return
        if self.priority is not None:
            self.priority.add(numbers[-self.capacity :] % self.capacity)

    def sample(self, count: int, device: torch.device) -> tuple[Sequences, np.ndarray]:
        """Draw `count` sequences with replacement; return them and their numbers (count,)."""
        self._update_pending()
        first = self.store.length - len(self)
        if self.priority is None:
            numbers = first + torch.randint(len(self), (count,)).numpy()
        else:
            slots = self.priority.draw(torch.rand(count, dtype=torch.float64).numpy())
            numbers = first + (slots - first) % self.capacity
        return sequences_of(self.store[numbers], self.num_new, device), numbers

    def update_priorities(self, numbers: np.ndarray, loss: Tensor) -> None:
        """Record the world model's loss (B,) on these sequences.

        The loss is read later, so that its device computation may still be running.
        """
        if self.priority is not None:
            self.pending.append((numbers, loss.detach()))

    def _update_pending(self) -> None:
        """Update the priorities with the losses that have been recorded since the last call."""
        for numbers, loss in self.pending:
            assert self.priority is not None
            self.priority.update(numbers % self.capacity, loss.double().cpu().numpy())
        self.pending = []

    def state_dict(self) -> dict[str, Any]:
        """Return the sequences, or a reference to them on disk, and the priorities."""
        self._update_pending()
        state = self.store.state_dict()
        if state:
            state["num_new"] = self.num_new
        if state and self.priority is not None:
            state["priority"] = self.priority.state_dict(self._live())
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a checkpoint. Raises ConfigError if the records that it refers to are missing."""
        if not state or self.capacity == 0:
            return
        if ("length" in state) != self.on_disk:
            return  # the replay moved between memory and disk
        weights = state.get("priority")
        self.pending = []
        self.store.load_state_dict({k: v for k, v in state.items() if k not in ("priority", "num_new")})
        self.dtype, self.num_new = self.store.dtype, state["num_new"]
        if self.priority is None:
            return
        self.priority.reset(self.capacity)
        if weights is None:
            self.priority.add(self._live())
        else:
            self.priority.load_state_dict(weights, self._live())

    def _live(self) -> np.ndarray:
        """Return the slots that can be drawn, the oldest first."""
        return (self.store.length - len(self) + np.arange(len(self))) % self.capacity

    def close(self) -> None:
        self.store.close()
