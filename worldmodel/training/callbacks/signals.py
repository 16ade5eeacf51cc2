"""Stop of a run between two updates after a signal."""

from __future__ import annotations

import signal
import threading
from typing import Any

import lightning as L

from worldmodel.interruption import SIGNALS, Interrupted, interrupt


class StopOnSignal(L.Callback):
    """Handler of SIGNALS that finishes the update, saves and stops. A second SIGINT interrupts immediately.

    Lightning restores the previous handlers at the end of the fit. Only the main thread of a process can set handlers;
    a fit in another thread sets none.
    """

    def __init__(self) -> None:
        self.received: str | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        def stop(number: int, frame: Any) -> None:
            if self.received and number == signal.SIGINT:
                raise Interrupted(number)
            self.received = signal.Signals(number).name

        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, stop)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.strategy.reduce_boolean_decision(self.received is not None, all=False):
            self.received = self.received or "signal on another rank"
            trainer.should_stop = True

    def pass_on(self) -> None:
        """Raise the signal again after saving, for the launcher's handler (that of submitit requeues the job)."""
        if self.received in signal.Signals.__members__:
            number = signal.Signals[self.received]
            handler = signal.getsignal(number)
            if callable(handler) and handler not in (signal.default_int_handler, interrupt):
                signal.raise_signal(number)
