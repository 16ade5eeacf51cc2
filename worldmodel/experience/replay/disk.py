"""Records on disk: one append-only file, in segments with a checksum each."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldmodel.errors import ConfigError
from worldmodel.files import write_text

SEGMENT = 2**26  # bytes, approximately


class Disk:
    """Store of records of one layout, appended to `folder`/records.bin and read back by number.

    A read is one system call through the page cache; its cost does not depend on the number of records.

    A checkpoint contains no records, only their number and a checksum over those of the segments. Resuming from it
    truncates what was appended later. No record is ever deleted, so the folder grows with the run. The folder belongs
    to one run; a run that starts from the beginning empties it.

    `begin` raises ConfigError if the folder is not writable, `append` raises OSError if the disk is full. A partial
    append is overwritten by the next one.
    """

    def __init__(self, folder: Path, segment: int = SEGMENT):
        self.folder, self.segment = folder, segment
        self.file: int | None = None

    def begin(self, dtype: np.dtype) -> None:
        """Create an empty file for records of `dtype`."""
        self.close()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "records.bin").unlink(missing_ok=True)
            self._open(dtype, max(1, self.segment // dtype.itemsize))
            write_text(self.folder / "layout.json", json.dumps({"fields": _fields(dtype), "segment": self.records}))
        except OSError as error:
            raise ConfigError(f"data.replay_dir={self.folder}: not writable ({error.strerror})") from None

    def _open(self, dtype: np.dtype, records: int) -> int:
        self.dtype, self.records = dtype, records
        self.file = os.open(self.folder / "records.bin", os.O_RDWR | os.O_CREAT, 0o666)
        self.length = 0
        self.sealed: list[str] = []  # checksums of the segments that are full
        self.open_digest = hashlib.sha256()
        return self.file

    def append(self, records: NDArray[np.void]) -> None:
        """Append (n,) records."""
        assert self.file is not None  # `begin` or `load_state_dict` comes first
        data, size = records.tobytes(), self.dtype.itemsize
        at = 0
        while at < len(data):
            at += os.pwrite(self.file, data[at:], self.length * size + at)
        while data:
            count = min(self.records - self.length % self.records, len(data) // size)  # records that fit in the segment
            self._digest(data[: count * size], count)
            data = data[count * size :]

    def _digest(self, data: bytes, count: int) -> None:
        """Update the checksum with `count` records, none of which crosses a segment's end."""
        self.open_digest.update(data)
        self.length += count
        if self.length % self.records == 0:
            self.sealed.append(self.open_digest.hexdigest())
            self.open_digest = hashlib.sha256()

    def __getitem__(self, numbers: NDArray[np.int64]) -> NDArray[np.void]:
        """Return the records of these numbers (n,), counted from the first record ever."""
        file, size = self.file, self.dtype.itemsize
        assert file is not None
        return np.frombuffer(b"".join(os.pread(file, size, int(i) * size) for i in numbers), self.dtype)

    def state_dict(self) -> dict[str, Any]:
        """Flush all records to disk and return their number and checksum."""
        if self.file is None:
            return {}
        os.fsync(self.file)
        return {"length": self.length, "sha256": self._checksum()}

    def _checksum(self) -> str:
        return hashlib.sha256("".join([*self.sealed, self.open_digest.hexdigest()]).encode()).hexdigest()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume after the records of a checkpoint. Raises ConfigError if they are missing or changed."""
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
        file = self._open(dtype, layout["segment"])
        while self.length < state["length"]:
            count = min(self.records, state["length"] - self.length)
            self._digest(os.pread(file, count * dtype.itemsize, self.length * dtype.itemsize), count)
        if self._checksum() != state["sha256"]:
            self.close()
            raise ConfigError(f"data.replay_dir={self.folder}: damaged, its checksum differs from the checkpoint's")
        os.ftruncate(file, need)

    def close(self) -> None:
        if self.file is not None:
            os.close(self.file)
            self.file = None


def _fields(dtype: np.dtype) -> list[list[Any]]:
    return [[name, dtype[name].base.str, list(dtype[name].shape)] for name in dtype.names or ()]
