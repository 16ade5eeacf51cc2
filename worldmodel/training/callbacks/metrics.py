"""Metrics of each update, as a row of metrics.csv and for the configured logger."""

from __future__ import annotations

import csv
import errno
import io
import os
import sys
import time
from pathlib import Path

import lightning as L

from worldmodel.experience.stream import ExperienceStream
from worldmodel.files import atomic_write
from worldmodel.training.metrics_file import MetricsFile, read_metrics_file, steps_of

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
    """Rows of metrics.csv. Later callbacks read the last row from `row`.

    When a run resumes, rows after its checkpoint are removed, and `wall_s` continues from the last row that is kept.
    """

    def __init__(self, run_dir: Path, stream: ExperienceStream):
        self.stream = stream
        self.path = run_dir / "metrics.csv"
        self.row: dict[str, float] = {}
        self.columns: list[str] = []
        self.unwritten: list[list[float | str]] = []
        self.warned = self.extend = False
        self.wall_before = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.began = self.last = time.perf_counter()
        self.steps = pl_module.steps
        if not trainer.is_global_zero:
            return
        found = read_metrics_file(self.path)
        rows = [r for r in found.rows if steps_of(r) <= pl_module.steps]
        if found.damaged and pl_module.steps:
            self._set_aside(found)
        self.extend = bool(rows)
        if rows:
            self.columns, self.wall_before = found.columns, float(rows[-1].get("wall_s") or 0.0)
            self._rewrite(rows)
        else:
            self.path.unlink(missing_ok=True)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.update_began = time.perf_counter()

    def _set_aside(self, found: MetricsFile) -> None:
        """Keep a damaged file under another name and print one warning."""
        copy = self.path.with_name("metrics.damaged.csv")
        os.replace(self.path, copy)
        rows = f"{found.damaged} damaged rows are left out"
        what = rows if found.columns else "its header is damaged, a new file begins"
        print(f"warning: {self.path}: {what}; the file as it was is {copy.name}", file=sys.stderr, flush=True)

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        data = _csv([self.columns, *([row.get(key, "") for key in self.columns] for row in rows)])
        atomic_write(self.path, lambda file: file.write(data))

    def read(self) -> list[dict[str, str]]:
        """Return the undamaged rows of metrics.csv."""
        return read_metrics_file(self.path).rows

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        now = time.perf_counter()
        steps, self.steps = pl_module.steps - self.steps, pl_module.steps
        report = pl_module.report()
        collect_s = report.pop("collect_s")
        offline = self.steps - pl_module.env_steps
        self.row = {
            "env_steps": pl_module.env_steps,
            "wall_s": round(self.wall_before + now - self.began, 3),
            "steps_per_s": round(steps / (now - self.last), 1),
            "steps_per_s_collect": round(steps / collect_s, 1),
            "steps_per_s_learn": round(steps / (now - self.update_began - collect_s), 1),
            **({"offline_steps": offline} if offline else {}),
            **self.stream.summary(),
            **report,
        }
        self.last = now
        if not trainer.is_global_zero:
            return
        if not self.columns:
            self.columns = COLUMNS + [k for k in self.row if k not in COLUMNS]
            self.unwritten.append(self.columns)
        elif self.extend and (new := [k for k in self.row if k not in self.columns]):  # of a file with other columns
            self.columns = [*self.columns, *new]
            self._rewrite(self.read())
        self.extend = False
        self.unwritten.append([_six_digits(self.row.get(k, "")) for k in self.columns])
        try:
            self._write()
            for logger in trainer.loggers:
                logger.log_metrics({k: v for k, v in self.row.items() if k != "env_steps"}, step=self.steps)
        except OSError as error:  # training continues with a full disk
            if not self.warned:
                self.warned = True
                print(f"warning: metrics are not written ({error.strerror}), until they can be", file=sys.stderr)

    def _write(self) -> None:
        """Append the unwritten rows. A row that fits only in part is removed and written again later."""
        data = _csv(self.unwritten)
        with self.path.open("ab", buffering=0) as file:
            end = file.seek(0, io.SEEK_END)
            try:
                if file.write(data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(end)
                raise
        self.unwritten.clear()


def _csv(rows: list[list[float | str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _six_digits(value: float | str) -> float | str:
    return float(f"{value:.6g}") if isinstance(value, float) else value
