"""Checkpoints of a run: last.ckpt, previous.ckpt and best.ckpt in DIR/checkpoints."""

from __future__ import annotations

import math
import os
import sys
import time
from pathlib import Path

import lightning as L

from worldmodel.errors import NonFiniteLoss, UnwritableError, check_range
from worldmodel.files import alias
from worldmodel.training.callbacks.metrics import Metrics


class CheckpointFiles:
    """Checkpoint files of a folder: the last one, the one before it (previous.ckpt) and the best one."""

    def __init__(self, folder: Path):
        self.folder = folder

    @property
    def next(self) -> Path:
        """Path that the next checkpoint is written to."""
        return self.folder / "next.ckpt"

    def publish(self, best: bool) -> None:
        """Rename the written checkpoint to last.ckpt, and alias it as best.ckpt if it is the best.

        Raises:
            OSError: if the disk is full or read-only.
        """
        last = self.folder / "last.ckpt"
        if last.exists():
            alias(last, self.folder / "previous.ckpt")
        os.replace(self.next, last)
        if best:
            alias(last, self.folder / "best.ckpt")


class Checkpoints(L.Callback):
    """Checkpoints between updates.

    `last` is saved every `every` updates, after `every_s` seconds and at the end of training, and the file before it is
    kept as `previous`. `best` is the checkpoint with the highest return so far.

    A file appears under its name only when it is complete and on the disk. If the disk is full or read-only, a warning
    is printed and training continues with the earlier checkpoints intact; at the end of training it is an error.
    Nothing is saved after a non-finite loss, so that the last finite weights are kept.
    """

    def __init__(self, run_dir: Path, metrics: Metrics, every: int = 20, every_s: float = 300.0):
        for key, value in (("every", every), ("every_s", every_s)):
            check_range(f"save.{key}", value, "(0, inf)")
        self.files, self.metrics = CheckpointFiles(run_dir / "checkpoints"), metrics
        self.every, self.every_s = every, every_s
        self.best = -math.inf
        self.saved: int | None = None  # optimiser steps at the last save of this process

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.tried = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        due = (trainer.current_epoch + 1) % self.every == 0 or time.monotonic() - self.tried >= self.every_s
        if trainer.strategy.reduce_boolean_decision(due, all=False):  # all ranks save together
            self.save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.saved != trainer.global_step:
            self.save(trainer, must=True)

    def save(self, trainer: L.Trainer, must: bool = False) -> None:
        """Write `last`, and `best` if it is the best.

        Raises:
            NonFiniteLoss: if a weight is not finite.
            OSError: if the file cannot be written although it `must`.
        """
        shares = (getattr(p, "to_local", lambda p=p: p)() for p in trainer.lightning_module.parameters())
        if not trainer.strategy.reduce_boolean_decision(all(bool(x.isfinite().all()) for x in shares)):
            raise NonFiniteLoss(f"weights are not finite at env_steps={self.metrics.row['env_steps']}")
        # all ranks save together, so the episodes of the first rank decide
        value = trainer.strategy.broadcast(self.metrics.row.get("return_ext", math.nan))
        before, self.tried = self.best, time.monotonic()
        self.best = max(value, before)  # `before` if `value` is nan
        if error := self._write(trainer, best=value > before):
            self.best = before
            if must:
                raise error
        else:
            self.saved = trainer.global_step

    def _write(self, trainer: L.Trainer, best: bool) -> OSError | None:
        """Write the file and return the error, the same on all ranks."""
        failure = None
        try:
            trainer.save_checkpoint(self.files.next)
        except OSError as error:
            failure = error
            trainer.strategy.barrier("Trainer.save_checkpoint")  # where the other ranks wait
        if trainer.is_global_zero and failure is None:
            try:
                self.files.publish(best)
            except OSError as error:
                failure = error
        text = trainer.strategy.broadcast(failure and (failure.strerror or str(failure)))
        if text is None:
            return None
        message = f"no checkpoint could be written at env_steps={self.metrics.row.get('env_steps')} ({text})"
        if trainer.is_global_zero:
            print(f"warning: {message}; the earlier ones are intact", file=sys.stderr, flush=True)
        return UnwritableError(f"{self.files.folder}: {message}")

    def state_dict(self) -> dict[str, float]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.best = state_dict["best"]
