"""checkpoints/last.ckpt and checkpoints/best.ckpt."""

from __future__ import annotations

import math
import os
from pathlib import Path

import lightning as L

from worldmodel.callbacks.metrics import Metrics


class Checkpoints(L.Callback):
    """Saves between updates: `last` every `every` updates and at the end, `best` where the return is the best so far.

    A file appears under its name only when it is whole. Nothing is saved after a non-finite loss, so the last good
    checkpoint stays.
    """

    def __init__(self, run_dir: Path, metrics: Metrics, every: int = 20):
        self.folder, self.metrics, self.every = run_dir / "checkpoints", metrics, every
        self.best = -math.inf

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if (trainer.current_epoch + 1) % self.every == 0:
            self.save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.save(trainer)

    def save(self, trainer: L.Trainer) -> None:
        """Write `last`, and `best` if it is."""
        self._write(trainer, "last")
        value = self.metrics.row.get("return_ext", math.nan)
        if value > self.best:
            self.best = value
            self._write(trainer, "best")

    def _write(self, trainer: L.Trainer, name: str) -> None:
        part = self.folder / f"{name}.ckpt.part"
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:
            os.replace(part, self.folder / f"{name}.ckpt")

    def state_dict(self) -> dict[str, float]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.best = state_dict["best"]
