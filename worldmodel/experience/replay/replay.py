"""Replay of past sequences for the world model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldmodel.experience.replay.disk import Disk
from worldmodel.experience.replay.priority import CuriousReplayPriority
from worldmodel.experience.replay.records import records_of, rollout_of
from worldmodel.experience.replay.ring_buffer import RingBuffer
from worldmodel.types import Rollout, map_obs


class Replay:
    """The last `capacity` sequences, in CPU memory or in `folder`.

    They are drawn uniformly, in O(1), or by `priority`, in O(log capacity). They contain the fields of `rehearsal`: not
    the h, values or rewards of the time of recording.
    """

    def __init__(self, capacity: int, priority: CuriousReplayPriority | None = None, folder: Path | None = None):
        self.capacity, self.priority = capacity, priority
        self.store: RingBuffer | Disk = RingBuffer(capacity) if folder is None else Disk(folder)
        self.dtype: np.dtype | None = None  # of the stored records
        self.told: list[tuple[np.ndarray, Tensor]] = []  # numbers and their losses, not yet processed
        self.warned = False
        if priority is not None:
            priority.reset(capacity)

    def __len__(self) -> int:
        """Return the number of sequences that can be drawn."""
        return 0 if self.dtype is None else min(self.store.length, self.capacity)

    @property
    def on_disk(self) -> bool:
        return isinstance(self.store, Disk)

    def add(self, roll: Rollout) -> None:
        """Store each of the rollout's B sequences."""
        if self.capacity == 0:
            return
        records = records_of(roll)
        if records.dtype != self.dtype:
            self.dtype = records.dtype
            self.store.begin(self.dtype)
        self._weigh()  # before a slot is reused
        numbers = self.store.length + np.arange(len(records))
        try:
            self.store.append(records)
        except OSError as error:  # training continues with a full disk
            if not self.warned:
                self.warned = True
                words = (
                    f"warning: data.replay_dir: write failed ({error.strerror}); dropping rollouts until one succeeds"
                )
                print(words, file=sys.stderr, flush=True)
            return
        if self.priority is not None:
            self.priority.add(numbers[-self.capacity :] % self.capacity)

    def sample(self, count: int, device: torch.device) -> tuple[Rollout, np.ndarray]:
        """Draw `count` sequences with replacement; return them and their numbers (count,)."""
        self._weigh()
        first = self.store.length - len(self)
        if self.priority is None:
            numbers = first + torch.randint(len(self), (count,)).numpy()
        else:
            slots = self.priority.draw(torch.rand(count, dtype=torch.float64).numpy())
            numbers = first + (slots - first) % self.capacity
        return rollout_of(self.store[numbers], device), numbers

    def learnt(self, numbers: np.ndarray, loss: Tensor) -> None:
        """Record the world model's loss (B,) on these sequences.

        The loss is read later, so that its device computation may still be running.
        """
        if self.priority is not None:
            self.told.append((numbers, loss.detach()))

    def _weigh(self) -> None:
        for numbers, loss in self.told:
            self.priority.learnt(numbers % self.capacity, loss.double().cpu().numpy())
        self.told = []

    def state_dict(self) -> dict[str, Any]:
        """Return the sequences, or a reference to them on disk, and the priorities."""
        self._weigh()
        state = self.store.state_dict()
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
        self.told = []
        self.store.load_state_dict({k: v for k, v in state.items() if k != "priority"})
        self.dtype = self.store.dtype
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


def concatenate(rolls: list[Rollout]) -> Rollout:
    """Join rollouts along the batch dimension; only fields present in all of them are kept."""
    if len(rolls) == 1:
        return rolls[0]
    shared = [name for name in vars(rolls[0]) if all(getattr(r, name) is not None for r in rolls)]
    return Rollout(**{name: map_obs(lambda *x: torch.cat(x), *(getattr(r, name) for r in rolls)) for name in shared})
