"""Records on disk: one file that only grows, in segments with a checksum each."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldmodel.files import write_text
from worldmodel.training.config import ConfigError

SEGMENT = 2**26  # bytes, about


class Disk:
    """Records of one layout, appended to `folder`/records.bin and read back by number, at a cost that does not depend
    on how many there are: one system call each, through the page cache.

    A checkpoint holds no record, only how many there were and a checksum over those of its segments; going on from it
    cuts off what was appended later. Nothing is ever deleted: a run's folder grows with the run. The folder is the
    run's own; a run that begins anew empties it.

    `begin` raises ConfigError where the folder can't be written, `append` OSError where the disk is full; what was
    appended only in part is written over by the next.
    """

    def __init__(self, folder: Path, segment: int = SEGMENT):
        self.folder, self.segment = folder, segment
        self.file: int | None = None

    def begin(self, dtype: np.dtype) -> None:
        """An empty file of records of `dtype`."""
        self.close()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "records.bin").unlink(missing_ok=True)
            self._open(dtype, max(1, self.segment // dtype.itemsize))
            write_text(self.folder / "layout.json", json.dumps({"fields": _fields(dtype), "segment": self.records}))
        except OSError as error:
            raise ConfigError(f"data.replay_dir={self.folder}: can't be written ({error.strerror})") from None

    def _open(self, dtype: np.dtype, records: int) -> None:
        self.dtype, self.records = dtype, records
        self.file = os.open(self.folder / "records.bin", os.O_RDWR | os.O_CREAT, 0o666)
        self.length = 0
        self.sealed: list[str] = []  # checksums of the segments that are full
        self.open_digest = hashlib.sha256()

    def append(self, records: NDArray[np.void]) -> None:
        """Write (n,) records at the end."""
        data, size = records.tobytes(), self.dtype.itemsize
        at = 0
        while at < len(data):
            at += os.pwrite(self.file, data[at:], self.length * size + at)
        while data:
            count = min(self.records - self.length % self.records, len(data) // size)  # what the segment has room for
            self._digest(data[: count * size], count)
            data = data[count * size :]

    def _digest(self, data: bytes, count: int) -> None:
        """Count `count` records, none of which crosses a segment's end."""
        self.open_digest.update(data)
        self.length += count
        if self.length % self.records == 0:
            self.sealed.append(self.open_digest.hexdigest())
            self.open_digest = hashlib.sha256()

    def __getitem__(self, numbers: NDArray[np.int64]) -> NDArray[np.void]:
        """The records of these numbers (n,), each counted from the first one ever."""
        size = self.dtype.itemsize
        return np.frombuffer(b"".join(os.pread(self.file, size, int(i) * size) for i in numbers), self.dtype)

    def state_dict(self) -> dict[str, Any]:
        """Puts everything onto the disk and refers to it."""
        if self.file is None:
            return {}
        os.fsync(self.file)
        return {"length": self.length, "sha256": self._checksum()}

    def _checksum(self) -> str:
        return hashlib.sha256("".join([*self.sealed, self.open_digest.hexdigest()]).encode()).hexdigest()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the records that a checkpoint refers to. Raises ConfigError where they are not what they were."""
        self.close()
        if not state:
            return
        path = self.folder / "records.bin"
        try:
            layout = json.loads((self.folder / "layout.json").read_text())
            there = path.stat().st_size
        except (OSError, ValueError) as error:
            raise ConfigError(f"data.replay_dir={self.folder}: not readable ({error})") from None
        dtype = np.dtype([(name, kind, tuple(shape)) for name, kind, shape in layout["fields"]])
        need = state["length"] * dtype.itemsize
        if there < need:
            raise ConfigError(f"data.replay_dir={self.folder}: {there} bytes, the checkpoint refers to {need}")
        self._open(dtype, layout["segment"])
        while self.length < state["length"]:
            count = min(self.records, state["length"] - self.length)
            self._digest(os.pread(self.file, count * dtype.itemsize, self.length * dtype.itemsize), count)
        if self._checksum() != state["sha256"]:
            self.close()
            raise ConfigError(f"data.replay_dir={self.folder}: damaged, its checksum is another than the checkpoint's")
        os.ftruncate(self.file, need)

    def close(self) -> None:
        if self.file is not None:
            os.close(self.file)
            self.file = None


def _fields(dtype: np.dtype) -> list[list[Any]]:
    return [[name, dtype[name].base.str, list(dtype[name].shape)] for name in dtype.names]
