"""Log of the executed actions of N copies, in memory or in a file that only grows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from worldmodel.files import sync_folder


class ActionLog:
    """Rows of actions (N, *act_shape), one per step, in the order of time.

    Discrete actions are stored in the smallest integers that hold them, those of a box as float32. With a `path`, rows
    are appended to the file by `flush`, and a state contains only their number: its size does not depend on the age of
    the run. The file is created by the first `flush`. Rows that cannot be written (full disk) are kept in memory and in
    the state, and written later.

    Args:
        space: published action space of one copy.
        num_envs: number of copies, N.
        path: of the file; None: the log is in memory and its state contains all rows.
    """

    def __init__(self, space: gym.Space, num_envs: int, path: Path | None = None):
        self.shape, self.path = (num_envs, *(space.shape or ())), path
        self.dtype = np.dtype(np.float32)
        if not isinstance(space, gym.spaces.Box):
            self.dtype = np.min_scalar_type(int(np.max(getattr(space, "nvec", getattr(space, "n", 2**31)))) - 1)
        self.written = 0  # rows in the file
        self.rows: list[np.ndarray] = []  # later rows

    def __len__(self) -> int:
        return self.written + len(self.rows)

    def append(self, act: Tensor) -> None:
        """Add the actions of one step, (N, *act_shape)."""
        self.rows.append(act.detach().cpu().numpy().astype(self.dtype))

    def flush(self, sync: bool = False) -> None:
        """Append the new rows to the file, and with `sync` wait until they are on the disk.

        Rows that could not be written, or may not have reached the disk, stay in memory.
        """
        if self.path is None or not len(self):
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("r+b" if self.written else "wb", buffering=0) as file:
                file.truncate(self.written * self._row_bytes)  # of a row that was written in part
                file.seek(0, os.SEEK_END)
                data = b"".join(row.tobytes() for row in self.rows)
                if file.write(data) < len(data):
                    return
                if sync:
                    os.fsync(file.fileno())
            if sync:
                sync_folder(self.path.parent)
        except OSError:
            return
        self.written, self.rows = len(self), []

    def last(self, count: int) -> Tensor:
        """Return the actions of the last `count` steps, (count, N, *act_shape), in the dtype of their space."""
        old = max(count - len(self.rows), 0)
        parts = [np.zeros((0, *self.shape), self.dtype)]
        if old:
            assert self.path is not None
            with self.path.open("rb") as file:
                file.seek((self.written - old) * self._row_bytes)
                data = file.read(old * self._row_bytes)
            parts.append(np.frombuffer(data, self.dtype).reshape(old, *self.shape))
        parts += [row[None] for row in self.rows[len(self.rows) - (count - old) :]]
        found = torch.from_numpy(np.concatenate(parts))
        return found if self.dtype.kind == "f" else found.long()

    def forget(self, keep: int) -> None:
        """Drop all but the last `keep` rows of a log in memory, which is then as long as if it began with these."""
        if self.path is None:
            self.rows = self.rows[len(self.rows) - keep :] if keep else []

    def state_dict(self) -> dict[str, Any]:
        """Return the number of rows in the file, the file's name and the rows that are not in it, as plain data."""
        self.flush(sync=True)
        rows = torch.from_numpy(np.stack(self.rows)) if self.rows else None
        return {"written": self.written, "file": self.path and self.path.name, "rows": rows}

    def load_state_dict(self, state: dict[str, Any]) -> bool:
        """Continue a saved log; later rows of its file are removed. Return False if rows are missing."""
        rows, written = state["rows"], state["written"]
        if written:
            if self.path is None or self.path.name != state["file"] or not self.path.is_file():
                return False
            if self.path.stat().st_size < written * self._row_bytes:
                return False
            os.truncate(self.path, written * self._row_bytes)
        self.written = written
        self.rows = [] if rows is None else list(rows.numpy().astype(self.dtype, copy=False))
        return all(row.shape == self.shape for row in self.rows)

    @property
    def _row_bytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize
