"""Progress bar with speed, return, success, intrinsic reward, skill and remaining time."""

from __future__ import annotations

import time

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from worldmodel.training.callbacks.metrics import Metrics
from worldmodel.training.metrics_file import steps_of

SHOWN = {
    "steps_per_s": ("steps/s", "{:.0f}"),
    "return_ext": ("return", "{:.3f}"),
    "success": ("success", "{:.2f}"),
    "rew_int": ("rew_int", "{:.3f}"),
    "delta_skill": ("skill", "{:.2f}"),
}


class ProgressBar(L.Callback):
    """Progress bar on a terminal; elsewhere (log file, CI) one line every `every_s` seconds."""

    def __init__(self, metrics: Metrics, total_steps: int, every_s: float = 10.0):
        self.metrics, self.total, self.every_s = metrics, total_steps, every_s
        self.console = Console(stderr=True)
        self.bar: Progress | None = None
        self.printed = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero and self.console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.completed:,.0f}/{task.total:,.0f} steps"),
                BarColumn(bar_width=20),
                TextColumn("{task.description}"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self.task = self.bar.add_task("collecting", total=self.total, completed=pl_module.steps)
            self.bar.start()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        row = self.metrics.row
        text = "  ".join(f"{name} {form.format(row[key])}" for key, (name, form) in SHOWN.items())
        if self.bar:
            self.bar.update(self.task, completed=steps_of(row), description=text)
        elif time.monotonic() - self.printed >= self.every_s:
            self.printed = time.monotonic()
            left = (self.total - steps_of(row)) / max(row["steps_per_s"], 1e-9)
            print(f"{steps_of(row):>9,.0f}/{self.total:,} steps  {text}  ETA {max(left, 0):.0f} s", flush=True)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.bar:
            self.bar.stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.on_fit_end(trainer, pl_module)
