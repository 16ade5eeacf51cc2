"""One row an update: metrics.csv, and whatever logger is configured."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import lightning as L

COLUMNS = [
    "env_steps",
    "wall_s",
    "steps_per_s",
    "return_ext",
    "success",
    "length",
    "rew_int",
    "delta_skill",
    "latent_std",
    "latent_rank",
    "entropy",
    "loss_delta",
    "loss_policy",
    "loss_value",
]


class Metrics(L.Callback):
    """Composes the row of each update and leaves it in `row` for the callbacks after it.

    Going on with a run, rows past its checkpoint are cut off, and `wall_s` goes on from the last one kept.
    """

    def __init__(self, run_dir: Path):
        self.path = run_dir / "metrics.csv"
        self.row: dict[str, float] = {}
        self.columns: list[str] = []
        self.file = None
        self.wall_before = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.began = self.last = time.perf_counter()
        if not trainer.is_global_zero:
            return
        rows = []
        if self.path.exists():
            with self.path.open(newline="") as file:
                whole = [r for r in csv.DictReader(file) if None not in r.values()]  # the last may be half a row
            rows = [r for r in whole if float(r["env_steps"]) <= int(pl_module.env_steps)]
        if rows:
            self.columns, self.wall_before = list(rows[0]), float(rows[-1]["wall_s"])
        self.file = self.path.open("w", newline="")
        if rows:
            writer = csv.DictWriter(self.file, self.columns)
            writer.writeheader()
            writer.writerows(rows)
            self.file.flush()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        now = time.perf_counter()
        steps = trainer.datamodule.steps_per_update * trainer.world_size
        self.row = {
            "env_steps": int(pl_module.env_steps),
            "wall_s": round(self.wall_before + now - self.began, 3),
            "steps_per_s": round(steps / (now - self.last), 1),
            **trainer.datamodule.summary(),
            **pl_module.report(),
        }
        self.last = now
        if not trainer.is_global_zero:
            return
        if not self.columns:
            self.columns = COLUMNS + [k for k in self.row if k not in COLUMNS]
        if self.file.tell() == 0:
            csv.writer(self.file).writerow(self.columns)
        csv.writer(self.file).writerow([_short(self.row.get(k, "")) for k in self.columns])
        self.file.flush()
        for logger in trainer.loggers:
            logger.log_metrics({k: v for k, v in self.row.items() if k != "env_steps"}, step=self.row["env_steps"])

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self.file:
            self.file.close()
            self.file = None


def _short(value: float | str) -> float | str:
    return float(f"{value:.6g}") if isinstance(value, float) else value
