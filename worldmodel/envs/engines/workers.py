"""Where a copy runs: in this process, or in one of its own."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

import gymnasium as gym
from gymnasium.vector.utils import CloudpickleWrapper

from worldmodel.envs.engines.resumable_env import ResumableEnv

# A fork of this process would inherit its locks, but not the threads that hold them: one that compiles, as numba does
# for Crafter, hung or crashed. So workers are forked from a server that has one thread and only imported this module.
_FORKSERVER = multiprocessing.get_context("forkserver")
_FORKSERVER.set_forkserver_preload([__name__])
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # to a whole group: the parent's to act on


class Fault(RuntimeError):
    """A copy raised, died, was silent for too long, or answered what is not allowed; the message says which."""


class Local:
    """A copy in this process: cheap, but one that dies or freezes takes everything with it."""

    def __init__(self, make: Callable[[], gym.Env]):
        self.copy = ResumableEnv(make)

    def ask(self, method: str, *args: Any) -> None:
        """Call a method of the copy; `answer` tells what came of it."""
        self.call = (method, args)

    def answer(self, deadline: float | None) -> Any:
        """Raises Fault."""
        method, args = self.call
        try:
            return getattr(self.copy, method)(*args)
        except Exception as error:
            raise Fault(_words(error)) from error

    def close(self, kill: bool = False) -> None:
        """Never raises: what is broken may fail to close, too."""
        with contextlib.suppress(Exception):
            self.copy.close()


class Remote:
    """A copy in a process of its own, which ends when this one does, however that ends."""

    def __init__(self, make: Callable[[], gym.Env]):
        self.pipe, theirs = _FORKSERVER.Pipe()
        self.process = _FORKSERVER.Process(target=_serve, args=(theirs, CloudpickleWrapper(make)), daemon=True)
        with one_thread(), _unsignalled(), _without_main():
            self.process.start()
        # multiprocessing would send SIGTERM, which a worker ignores, and wait for it for ever
        atexit.register(self.process.kill)
        theirs.close()  # or a dead worker's pipe would look alive

    def ask(self, method: str, *args: Any) -> None:
        """Have the copy begin; `answer` waits for it."""
        with contextlib.suppress(OSError):  # the answer will tell
            self.pipe.send((method, args))

    def answer(self, deadline: float | None) -> Any:
        """What the copy answered until `deadline`, a time of `time.monotonic` (None: without limit). Raises Fault."""
        left = None if deadline is None else max(deadline - time.monotonic(), 0)
        if self.pipe not in wait([self.pipe, self.process.sentinel], left):
            raise Fault("it was silent for too long" if self.process.is_alive() else self._death())
        try:
            good, value = self.pipe.recv()
        except (EOFError, OSError):
            raise Fault(self._death()) from None
        if not good:
            raise Fault(value)
        return value

    def _death(self) -> str:
        self.process.join(1.0)
        return f"its process died (exit code {self.process.exitcode})"  # -9: by signal 9

    def close(self, kill: bool = False) -> None:
        """End the process: by asking it to, or at once."""
        if not kill:
            self.ask("close")
            self.process.join(1.0)
        self.process.kill()
        self.process.join()
        atexit.unregister(self.process.kill)
        self.pipe.close()


def _serve(pipe: Connection, make: CloudpickleWrapper) -> None:
    """The worker's life."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    copy: ResumableEnv | None = None
    while True:
        try:
            method, args = pipe.recv()
        except (EOFError, OSError):  # the parent is gone
            return
        try:
            copy = copy or ResumableEnv(make)
            answer = (True, getattr(copy, method)(*args))
        except Exception as error:
            answer = (False, _words(error))
        try:
            pipe.send(answer)
        except OSError:
            return
        if method == "close":
            return


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


@contextlib.contextmanager
def _unsignalled() -> Iterator[None]:
    """Processes started inside, the server among them, never receive what is the parent's to act on."""
    resource_tracker.ensure_running()  # would unblock signals when the server starts it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Processes started inside do not run the caller's script again: seconds each, and it may lack the guard."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Processes started inside inherit OMP_NUM_THREADS=1."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
