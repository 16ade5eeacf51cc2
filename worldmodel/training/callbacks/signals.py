"""A signal ends the run between two updates, in order."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L

RESUMABLE = 75  # the exit code that says: start me again with checkpoint=auto
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
"""SIGTERM is what machines that are taken away and `scancel` send; SIGUSR1 and SIGUSR2 what Slurm sends ahead of a time
limit (`--signal=USR1@90`; submitit asks for USR2); SIGINT is the keyboard's."""


class StopOnSignal(L.Callback):
    """On one of SIGNALS: finish the update, save, stop. A second SIGINT interrupts at once.

    Lightning puts the handlers of before the fit back when the fit ends. Signals reach a process's main thread only,
    so a fit in another one leaves them alone.
    """

    def __init__(self) -> None:
        self.received: str | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        def stop(number: int, frame: Any) -> None:
            if self.received and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.received = signal.Signals(number).name

        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, stop)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.strategy.reduce_boolean_decision(self.received is not None, all=False):
            self.received = self.received or "signal on another rank"
            trainer.should_stop = True

    def pass_on(self) -> None:
        """Once all is saved: let the launcher's own handler have its turn (submitit's queues the job again)."""
        if self.received in signal.Signals.__members__:
            number = signal.Signals[self.received]
            handler = signal.getsignal(number)
            if callable(handler) and handler not in (signal.default_int_handler, exit_resumable):
                signal.raise_signal(number)


def exit_resumable(number: int, frame: Any) -> None:
    """A handler for the time before the first update, when there is nothing to save yet."""
    sys.exit(RESUMABLE)


@contextmanager
def resumable_from_the_start() -> Iterator[None]:
    """Take over those of SIGNALS that would end the process with a code that says nothing."""
    taken = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, exit_resumable)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
