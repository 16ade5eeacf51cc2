"""Runner of cells in parallel processes of one thread each."""

from __future__ import annotations

import csv
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console
from rich.live import Live
from rich.table import Table

from worldmodel.errors import ConfigError
from worldmodel.experiments.benchmark.suite import Cell
from worldmodel.files import write_json
from worldmodel.training.run import find_checkpoint
from worldmodel.training.run_record import read_record

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
ASKED = "cell.json"  # settings of the folder's cell, which a resumed one must share


def cores() -> int:
    """Return the number of cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def finished(cell: Cell) -> bool:
    """Return whether a cell has finished. Raises ConfigError where its folder has a run with other overrides."""
    asked = cell.folder / ASKED
    if asked.exists() and (before := json.loads(asked.read_text())["overrides"]) != list(cell.overrides):
        differ = sorted({*before} ^ {*cell.overrides}) or ["their order"]
        raise ConfigError(f"out={cell.folder}: was run with other overrides ({' '.join(differ)}), choose another out")
    return trained(cell) and (cell.evaluate is None or (cell.folder / "report.json").exists())


def trained(cell: Cell) -> bool:
    """Return whether the training of a cell has ended as configured."""
    return read_record(cell.folder / "run.json").get("status") == "done"


def command(cell: Cell) -> list[str]:
    """Return the next command of a cell: train, resume from its newest checkpoint, or evaluate.

    A resumed run has its configuration in the checkpoint, so the overrides are not repeated.
    """
    python = [sys.executable, "-m"]
    if trained(cell):
        checkpoint = cell.folder / "checkpoints" / "last.ckpt"
        return [*python, "worldmodel.evaluate", f"checkpoint={checkpoint}", *cell.evaluate]
    auto = OmegaConf.create({"checkpoint": "auto", "run_dir": str(cell.folder)})
    if checkpoint := find_checkpoint(auto):
        return [*python, "worldmodel.train", f"checkpoint={checkpoint}", f"run_dir={cell.folder}"]
    own = [f"seed={cell.seed}", f"run_dir={cell.folder}", "threads=1", "overwrite=true"]  # a run without a checkpoint
    return [*python, "worldmodel.train", *cell.overrides, *own]


@dataclass
class Running:
    """A cell's process."""

    cell: Cell
    process: subprocess.Popen
    began: float = field(default_factory=time.perf_counter)


class Runner:
    """Runs the unfinished cells, `jobs` processes at a time.

    After SIGINT or SIGTERM, each process saves and stops, and no other starts; a second signal kills them. On Linux
    they also stop when this process dies. `on_done` receives each cell that finishes.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        jobs: int,
        console: Console | None = None,
        on_done: Callable[[Cell], None] = lambda cell: None,
    ):
        self.cells, self.jobs, self.console, self.on_done = cells, jobs, console or Console(), on_done
        done = {cell.folder for cell in cells if finished(cell)}
        self.waiting = deque(cell for cell in cells if cell.folder not in done)
        self.running: list[Running] = []
        self.state = {cell.folder: "done" if cell.folder in done else "waiting" for cell in cells}
        self.signalled: str | None = None
        self.began = time.perf_counter()

    def run(self, poll_s: float = 0.25) -> None:
        """Run all cells, or until a signal (`signalled`). A failed cell is reported, and runs again next time."""
        with self._signals(), self._live() as live:
            while self.running or (self.waiting and not self.signalled):
                while self.waiting and len(self.running) < self.jobs and not self.signalled:
                    cell = self.waiting.popleft()
                    if finished(cell):  # by another process on the same folder
                        self.state[cell.folder] = "done"
                        self.on_done(cell)
                    else:
                        self._start(cell)
                time.sleep(poll_s)
                for job in [x for x in self.running if x.process.poll() is not None]:
                    self._end(job)
                if live:
                    live.update(self.table(), refresh=True)

    def _start(self, cell: Cell) -> None:
        cell.folder.mkdir(parents=True, exist_ok=True)
        write_json(cell.folder / ASKED, {"overrides": list(cell.overrides), "seed": cell.seed})
        with (cell.folder / "log.txt").open("a") as log:
            process = subprocess.Popen(
                command(cell),
                stdout=log,
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,  # only this process receives a terminal's Ctrl-C, and passes it on once
                preexec_fn=_follow_parent,
            )
        self.running.append(Running(cell, process))
        if self.signalled:  # between the start of the process and its entry in the list
            process.terminate()
        self.state[cell.folder] = "running"

    def _end(self, job: Running) -> None:
        cell, code = job.cell, job.process.returncode
        self.running.remove(job)
        if code == 0 and not finished(cell) and trained(cell) and not self.signalled:
            self._start(cell)  # its evaluation
            return
        done = finished(cell)
        self.state[cell.folder] = "done" if done else "stopped" if self.signalled else "failed"
        if done:
            self.on_done(cell)
        if not done and not self.signalled:
            self._print(f"{cell.folder}: failed with exit code {code}, see {cell.folder / 'log.txt'}")
        elif not self.console.is_terminal:
            counts = list(self.state.values())
            over = sum(x not in ("waiting", "running") for x in counts)
            self._print(f"{over}/{len(counts)} {cell.world.name} {cell.method} seed {cell.seed}: "
                        f"{self.state[cell.folder]}  {time.perf_counter() - self.began:.0f} s")  # fmt: skip

    def _print(self, line: str) -> None:
        self.console.print(line, soft_wrap=True, highlight=False)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(number: int, frame: Any) -> None:
            for job in self.running:
                job.process.send_signal(signal.SIGKILL if self.signalled else signal.SIGTERM)
            self.signalled = signal.Signals(number).name

        before = {number: signal.signal(number, stop) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            for job in self.running:  # only after an error of our own
                job.process.terminate()

    @contextmanager
    def _live(self) -> Iterator[Live | None]:
        if not self.console.is_terminal:
            yield None
            return
        with Live(self.table(), console=self.console, auto_refresh=False) as live:  # no thread: this process forks
            yield live

    def table(self) -> Table:
        """Return the progress of each process, and the number of cells by state."""
        states = list(self.state.values())
        counts = ", ".join(f"{states.count(s)} {s}" for s in ("done", "running", "waiting", "failed", "stopped"))
        title = f"{counts}  {time.perf_counter() - self.began:.0f} s"
        if self.signalled:
            title = f"{self.signalled}: stopping   {title}"
        table = Table("environment", "method", "seed", "steps", "of", self.cells[0].metric if self.cells else "", "s",
                      title=title, title_justify="left")  # fmt: skip
        for job in self.running:
            cell, row = job.cell, last_row(job.cell.folder / "metrics.csv")
            steps, value = float(row.get("env_steps", 0)), row.get(cell.metric) or "-"
            table.add_row(cell.world.name, cell.method, str(cell.seed), f"{steps:,.0f}", f"{cell.budget:,}", value,
                          f"{time.perf_counter() - job.began:.0f}")  # fmt: skip
        return table


def last_row(path: Path) -> dict[str, str]:
    """Return the last complete row of a metrics.csv that is being written; empty where there is none."""
    if not path.exists():
        return {}
    with path.open("rb") as file:
        head = file.readline().decode()
        file.seek(max(len(head), file.seek(0, os.SEEK_END) - 4096))
        lines = (
            file.read().decode(errors="ignore").split("\n")[:-1]
        )  # the text after the last line break is an incomplete row
    names, values = (next(csv.reader([x])) for x in (head, lines[-1] if lines else ""))
    return dict(zip(names, values, strict=True)) if len(names) == len(values) else {}


def _follow_parent() -> None:
    """In the child process: receive SIGTERM when the parent dies (Linux's PR_SET_PDEATHSIG)."""
    if LIBC:
        LIBC.prctl(1, signal.SIGTERM)
