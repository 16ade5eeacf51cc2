"""Workers that run a copy in this process or in a separate one."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

import gymnasium as gym
from gymnasium.vector.utils import CloudpickleWrapper

from worldmodel.envs.engines.resumable_env import ResumableEnv
from worldmodel.envs.output_check import InvalidOutput

# A fork of this process would inherit its locks, but not the threads that hold them. A fork that compiles, as numba
# does for Crafter, hung or crashed. So workers are forked from a server of one thread that imports only this module.
_FORKSERVER = multiprocessing.get_context("forkserver")
_FORKSERVER.set_forkserver_preload([__name__])
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # sent to process groups; for the parent


class Fault(RuntimeError):
    """Failure of a copy, with its kind in the message: an exception, a death, a timeout, or an invalid answer."""


class Local:
    """Copy in this process: cheap, but its death or hang affects the whole process."""

    def __init__(self, make: Callable[[], gym.Env], requested: Mapping[str, str] | None = None):
        self.copy = ResumableEnv(make, requested)

    def ask(self, method: str, *args: Any) -> None:
        """Request a call of the copy's method; `answer` executes it."""
        self.call = (method, args)

    def answer(self, deadline: float | None) -> Any:
        """Return the result of the requested call. Raises Fault."""
        method, args = self.call
        try:
            return getattr(self.copy, method)(*args)
        except Exception as error:
            raise Fault(_words(error)) from error

    def close(self, kill: bool = False) -> None:
        """Close the copy without raising, since a failed copy may fail to close."""
        with contextlib.suppress(Exception):
            self.copy.close()


class Remote:
    """Copy in a separate process, which ends with this one, however this one ends."""

    def __init__(self, make: Callable[[], gym.Env], requested: Mapping[str, str] | None = None):
        self.pipe, theirs = _FORKSERVER.Pipe()
        given = theirs, CloudpickleWrapper(make), requested
        self.process = _FORKSERVER.Process(target=_serve, args=given, daemon=True)
        with one_thread(), _unsignalled(), _without_main():
            self.process.start()
            # multiprocessing would send SIGTERM, which a worker ignores, and wait for it forever
            atexit.register(self.process.kill)  # before a pending signal can end this process
        theirs.close()  # otherwise the pipe of a dead worker would stay open

    def ask(self, method: str, *args: Any) -> None:
        """Start a call of the copy's method; `answer` waits for its result."""
        with contextlib.suppress(OSError):  # `answer` reports the failure
            self.pipe.send((method, args))

    def answer(self, deadline: float | None) -> Any:
        """Return the result of the call, at the latest at `deadline`, a time of `time.monotonic` (None: no limit).

        Raises Fault.
        """
        left = None if deadline is None else max(deadline - time.monotonic(), 0)
        if self.pipe not in wait([self.pipe, self.process.sentinel], left):
            raise Fault("no answer within the timeout" if self.process.is_alive() else self._death())
        try:
            good, value = self.pipe.recv()
        except (EOFError, OSError):
            raise Fault(self._death()) from None
        if not good:
            raise Fault(value)
        return value

    def _death(self) -> str:
        self.process.join(1.0)
        return f"the process died (exit code {self.process.exitcode})"  # -9: killed by signal 9

    def close(self, kill: bool = False) -> None:
        """End the process: on request, or with `kill` immediately."""
        if not kill:
            self.ask("close")
            self.process.join(1.0)
        self.process.kill()
        self.process.join()
        atexit.unregister(self.process.kill)
        self.pipe.close()


def _serve(pipe: Connection, make: CloudpickleWrapper, requested: Mapping[str, str] | None) -> None:
    """Run the worker's loop: receive calls, execute them, send the results."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    copy: ResumableEnv | None = None
    while True:
        try:
            method, args = pipe.recv()
        except (EOFError, OSError):  # the parent is gone
            return
        try:
            copy = copy or ResumableEnv(make, requested)
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
    line = " ".join(str(error).split())[:200]
    return line if isinstance(error, InvalidOutput) else f"{type(error).__name__}: {line}"


@contextlib.contextmanager
def _unsignalled() -> Iterator[None]:
    """Block the parent's signals in processes started inside, including the server."""
    resource_tracker.ensure_running()  # if started by the server, it would unblock the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Prevent processes started inside from running the caller's script, which takes seconds and may lack the guard."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Set OMP_NUM_THREADS=1 for processes started inside."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
