"""A signal ends the run between two updates, in order."""

from __future__ import annotations

import signal
from typing import Any

import lightning as L

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopOnSignal(L.Callback):
    """On SIGTERM, SIGINT or SIGUSR1: finish the update, save, stop. A second SIGINT interrupts at once."""

    def __init__(self) -> None:
        self.received: str | None = None
        self.before: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        def stop(number: int, frame: Any) -> None:
            if self.received and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.received = signal.Signals(number).name

        self.before = {s: signal.signal(s, stop) for s in SIGNALS}

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.strategy.reduce_boolean_decision(self.received is not None, all=False):
            self.received = self.received or "signal on another rank"
            trainer.should_stop = True

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}
