"""checkpoints/last.ckpt and checkpoints/best.ckpt."""

from __future__ import annotations

import math
import os
from pathlib import Path

import lightning as L

from worldmodel.callbacks.metrics import Metrics
from worldmodel.module import NonFiniteLoss


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
        """Write `last`, and `best` if it is. Raises NonFiniteLoss where the last step has broken the weights."""
        if not all(p.isfinite().all() for p in trainer.lightning_module.parameters()):
            raise NonFiniteLoss(f"weights are not finite at env_steps={self.metrics.row['env_steps']}")
        # all ranks save together, so the first one's episodes decide for all
        value = trainer.strategy.broadcast(self.metrics.row.get("return_ext", math.nan))
        names = ["last"]
        if value > self.best:
            self.best = value
            names.append("best")
        for name in names:
            part = self.folder / f"{name}.ckpt.part"
            trainer.save_checkpoint(part)
            if trainer.is_global_zero:
                os.replace(part, self.folder / f"{name}.ckpt")

    def state_dict(self) -> dict[str, float]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.best = state_dict["best"]
