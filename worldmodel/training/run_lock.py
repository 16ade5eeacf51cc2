"""Ownership of a run folder: one process at a time writes to it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from worldmodel.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows: the heartbeat alone decides
    fcntl = None  # type: ignore[assignment]

NAME = "run.lock"
HEARTBEAT_S = 15.0
STALE_S = 120.0  # a heartbeat of this age is that of a process that has ended or hangs
_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)  # by another process; any other error: no locks here


class FolderTaken(ConfigError):
    """Another process owns the run folder by now, because this one's heartbeat was too old."""


class RunLock:
    """Lock of a run folder, in DIR/run.lock with the owner's host, pid, Slurm job and heartbeat.

    The folder is free if it has no such file, or if the file's owner has ended: its lock (`flock`) can be taken, its
    process is gone from this host, it was an earlier start of this Slurm job, or its heartbeat is older than STALE_S.
    Where the file system has no locks, the last three decide. Readers need no lock.

    Raises:
        ConfigError: if another process owns the folder, or the folder is not writable.
    """

    def __init__(self, run_dir: Path, heartbeat_s: float = HEARTBEAT_S):
        self.run_dir, self.path = run_dir, run_dir / NAME
        self.token, self.over = uuid.uuid4().hex, threading.Event()
        try:
            self.handle = self._take()
        except OSError as error:
            raise ConfigError(f"run_dir={run_dir}: not writable ({error.strerror})") from None
        self.thread = threading.Thread(target=self._beat, args=(heartbeat_s,), daemon=True)
        self.thread.start()

    def _take(self) -> int:
        """Return a handle of the lock's file with this process as its owner."""
        while True:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                locked = self._flock(handle)
                if not self._is_current(handle):  # its owner removed it in between
                    os.close(handle)
                    continue
                found = _read(handle)
                if locked is not True and found and not ended(found):
                    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found["began"]))
                    owner = f"process {found['pid']} on {found['host']} since {since}"
                    raise ConfigError(f"run_dir={self.run_dir}: in use by {owner}, choose another folder or stop it")
                if locked is False:  # of a process that hangs, or of a child of one that has ended
                    handle = self._replace(handle)
                self._write(handle)
            except BaseException:
                os.close(handle)
                raise
            if locked is not None or self._settled():
                return handle
            os.close(handle)

    def _flock(self, handle: int) -> bool | None:
        """Return whether the lock was taken; None where the file system has no locks."""
        if fcntl is None:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return False if error.errno in _HELD else None
        return True

    def _replace(self, old: int) -> int:
        """Put a new file in place of one whose lock is held, and lock it."""
        new = self.path.with_name(f"{NAME}.{self.token}")
        handle = os.open(new, os.O_RDWR | os.O_CREAT, 0o666)
        self._flock(handle)
        os.replace(new, self.path)
        os.close(old)
        return handle

    def _settled(self) -> bool:
        """Return whether this process is still the owner after a moment in which another one may have written."""
        time.sleep(0.1)
        return not self.lost

    def _is_current(self, handle: int) -> bool:
        try:
            return os.path.samestat(os.fstat(handle), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _write(self, handle: int) -> None:
        """Write the owner and the heartbeat in place, since a rename would drop the lock."""
        now = time.time()
        self.began = getattr(self, "began", now)
        about = {**here(), "began": self.began, "heartbeat": now, "token": self.token}
        data = json.dumps(about).encode().ljust(512) + b"\n"
        os.pwrite(handle, data, 0)
        os.ftruncate(handle, len(data))

    def _beat(self, every_s: float) -> None:
        while not self.over.wait(every_s):
            with contextlib.suppress(OSError):  # a full disk; the next one may succeed
                if self.lost:
                    return
                self._write(self.handle)

    @property
    def lost(self) -> bool:
        """Return True if another process has taken the folder, which needs a heartbeat older than STALE_S."""
        try:
            with self.path.open("rb") as file:
                found = _parse(file.read())
        except OSError:
            return False
        return bool(found) and found.get("token") != self.token

    def release(self) -> None:
        """Remove the file, unless another process owns it by now."""
        self.over.set()
        self.thread.join()
        with contextlib.suppress(OSError):
            if self._is_current(self.handle) and not self.lost:
                self.path.unlink()
        os.close(self.handle)


def here() -> dict[str, Any]:
    """Return what identifies this process: its host, its process id and the namespace of that id, and its Slurm job."""
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino  # containers on one host can share a name, but not this
    except OSError:
        namespace = None
    host = socket.gethostname()
    return {"host": host, "pid": os.getpid(), "pids": namespace, "job": os.environ.get("SLURM_JOB_ID")}


def ended(owner: dict[str, Any], now: float | None = None) -> bool:
    """Return whether the owner of a lock that cannot be taken has ended.

    A live process on this host owns its folder, whatever its job. A requeued job keeps its id.
    """
    own = here()
    if (time.time() if now is None else now) - owner["heartbeat"] > STALE_S:
        return True
    if (owner["host"], owner["pids"]) == (own["host"], own["pids"]):
        return not _alive(owner["pid"])
    return own["job"] is not None and owner["job"] == own["job"]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _read(handle: int) -> dict[str, Any]:
    return _parse(os.pread(handle, 4096, 0))


def _parse(data: bytes) -> dict[str, Any]:
    """Return the content of a lock's file; empty for one that is empty or damaged."""
    try:
        found = json.loads(data)
        known = found.keys() >= {"host", "pid", "pids", "job", "began", "heartbeat"}
    except (ValueError, AttributeError):
        return {}
    return found if known else {}


@contextmanager
def owned(run_dir: Path) -> Iterator[RunLock | None]:
    """Own a run folder within a context; on ranks other than the first, do nothing.

    Raises:
        ConfigError: see `RunLock`.
    """
    if rank_of_launcher() != 0:
        yield None
        return
    lock = RunLock(run_dir)
    try:
        yield lock
    finally:
        lock.release()


def rank_of_launcher() -> int:
    """Return this process's rank by the variables that launchers set, before a process group exists."""
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK", "NODE_RANK", "GROUP_RANK")
    return int(next((rank for rank in map(os.environ.get, names) if rank), 0))
