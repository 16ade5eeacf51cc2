"""A signal ends the run between two updates, in order."""

from __future__ import annotations

import signal
from typing import Any

import lightning as L

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopOnSignal(L.Callback):
    """On SIGTERM, SIGINT or SIGUSR1: finish the update, save, stop. A second SIGINT interrupts at once.

    Lightning puts the handlers of before the fit back when the fit ends.
    """

    def __init__(self) -> None:
        self.received: str | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        def stop(number: int, frame: Any) -> None:
            if self.received and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.received = signal.Signals(number).name

        for number in SIGNALS:
            signal.signal(number, stop)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.strategy.reduce_boolean_decision(self.received is not None, all=False):
            self.received = self.received or "signal on another rank"
            trainer.should_stop = True
