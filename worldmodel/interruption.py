"""End of a command by a signal: one exit code, no traceback, no partial file.

This module is imported first, by `worldmodel/__init__.py`, and imports nothing slow.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

RESUMABLE = 75  # exit code: stopped by a signal, and a further command resumes
INTERRUPTED = 130  # exit code: stopped by a signal, with nothing to resume
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
"""SIGTERM is sent at a preemption and by `scancel`, SIGUSR1 and SIGUSR2 by Slurm ahead of a time limit
(`--signal=USR1@90`; submitit uses USR2), SIGINT by the keyboard."""

GRACE_S = 2.0  # after this time, a further signal ends the process immediately
_REPEATABLE = ("benchmark", "cluster", "population", "study")  # the same command resumes
_first: float | None = None  # time of the first signal of the present command


class Interrupted(BaseException):
    """Raised in the main thread by a signal.

    Not an Exception, so that no handler of errors catches it.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number, self.resumable = number, resumes(sys.orig_argv, sys.argv[1:])

    @property
    def code(self) -> int:
        """Exit code: 75 if a further command resumes the work, 130 if nothing was kept."""
        return RESUMABLE if self.resumable else INTERRUPTED


def command_of(interpreter_arguments: list[str]) -> str | None:
    """Return the name of the command of a process, for example `train`; None for another program.

    Args:
        interpreter_arguments: `sys.orig_argv`.
    """
    words = iter(interpreter_arguments[1:])
    for word in words:
        if word in ("-X", "-W"):
            next(words, None)
        elif word.startswith("-m") or not word.startswith("-"):
            name = word.removeprefix("-m") or next(words, "")
            found = re.search(r"(?:^|/)worldmodel[.\-/](\w+?)(?:\.py)?$", name)
            return found and found[1]
    return None


def resumes(interpreter_arguments: list[str], arguments: list[str]) -> bool:
    """Return whether the arguments alone show that a command can be resumed."""
    command = command_of(interpreter_arguments)
    given = [x.partition("=")[2] for x in arguments if x.lstrip("+").startswith("checkpoint=")]
    return command in _REPEATABLE or (command == "train" and given[-1:] not in ([], ["null"]))


def exit_while_importing() -> None:
    """In the process of a command, let SIGNALS exit immediately: while modules are imported, there is nothing to undo.

    In any other process, nothing changes.
    """
    if command_of(sys.orig_argv) is not None:
        for number in SIGNALS:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                signal.signal(number, _exit)


def _exit(number: int, frame: Any) -> None:
    os._exit(RESUMABLE if resumes(sys.orig_argv, sys.argv[1:]) else INTERRUPTED)


def interrupt(number: int, frame: Any) -> None:
    """Handler of SIGNALS: raise Interrupted; after GRACE_S seconds of cleaning up, exit immediately."""
    global _first
    if _first is None:
        _first = time.monotonic()
        raise Interrupted(number)
    if time.monotonic() - _first > GRACE_S:
        _exit(number, frame)


@contextmanager
def interruptible() -> Iterator[None]:
    """Context in which SIGNALS with a default handler raise Interrupted in the main thread.

    Afterwards the process of a command ignores them, because its exit code is decided; another process gets its
    handlers back. Outside of the main thread, nothing changes.
    """
    global _first
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _first = None
    default = (signal.SIG_DFL, signal.default_int_handler, _exit)
    before = {number: handler for number in SIGNALS if (handler := signal.getsignal(number)) in default}
    for number in before:
        signal.signal(number, interrupt)
    hook = sys.unraisablehook

    def deliver_again(lost: sys.UnraisableHookArgs) -> None:
        """Send the signal again if its exception was raised in a finaliser, where Python drops it."""
        if not isinstance(lost.exc_value, Interrupted):
            return hook(lost)
        global _first
        _first = None
        timer = threading.Timer(0.05, os.kill, (os.getpid(), lost.exc_value.number))
        timer.daemon = True
        timer.start()

    sys.unraisablehook = deliver_again
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if handler is _exit else handler)


def install_again() -> None:
    """Set `interrupt` as the handler of SIGNALS again, after a library has set its own."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, interrupt)
