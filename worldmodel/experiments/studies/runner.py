"""What every study needs: cells that are run once, a table, a plot."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from worldmodel.experiments.benchmark.provenance import effort, provenance
from worldmodel.experiments.benchmark.runner import Runner
from worldmodel.experiments.benchmark.suite import Cell, cells_of
from worldmodel.experiments.benchmark.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Stopped(Exception):
    """A signal came; the runs can go on."""


class Lab:
    """Trains into `out` with `jobs` processes of one thread each, and keeps what a study found there."""

    def __init__(self, name: str, out: Path, jobs: int):
        self.name, self.out, self.jobs = name, out, jobs
        self.asked: list[Cell] = []

    def cells(
        self,
        methods: Mapping[str, Sequence[str]],
        common: Sequence[str],
        seeds: Sequence[int],
        evaluate: Sequence[str] | None = None,
    ) -> list[Cell]:
        """One cell for each method (its overrides on top of `common`) and seed, judged with the overrides `evaluate`
        and its own seed after its training where they are given. Raises ConfigError."""
        suite = {
            "name": self.name,
            "common": ["video=false", "logger=none", *common],
            "envs": {"runs": []},
            "methods": {m: {"overrides": list(overrides)} for m, overrides in methods.items()},
        }
        found = cells_of(OmegaConf.create(suite), self.out, seeds=seeds)
        if evaluate is not None:
            found = [replace(cell, evaluate=(*evaluate, f"seed={cell.seed}")) for cell in found]
        self.asked += found
        return found

    def train(self, cells: Sequence[Cell]) -> None:
        """Run those that aren't finished. Raises Stopped after a signal, RuntimeError where one failed."""
        runner = Runner(cells, self.jobs)
        runner.run()
        if runner.signalled:
            raise Stopped(runner.signalled)
        if failed := [str(folder) for folder, state in runner.state.items() if state == "failed"]:
            raise RuntimeError(f"{failed[0]}: failed, see its log.txt")

    def write(self, table: Table, notes: str) -> None:
        """table.csv and table.md; the notes say how the figures came about, and what ran for them is added."""
        self.out.mkdir(parents=True, exist_ok=True)
        with (self.out / "table.csv").open("w", newline="") as file:
            csv.writer(file).writerows([table.header, *table.rows])
        if self.asked and (made := provenance(self.name, self.asked))["runs"]:
            notes += f" {effort(made).strip()}"
        (self.out / "table.md").write_text(f"**{table.title}**\n\n{table.markdown()}\n\n{notes}\n")

    def save(self, figure: Figure) -> None:
        figure.savefig(self.out / "plot.png", dpi=110)


def cpu_seconds(cell: Cell) -> float:
    """What cores spent on a run's training."""
    return json.loads((cell.folder / "run.json").read_text())["cpu_s"]


def report_of(cell: Cell) -> dict[str, Any]:
    """What the evaluation of a cell wrote."""
    return json.loads((cell.folder / "report.json").read_text())
