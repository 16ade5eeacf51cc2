"""Runner of a study: it trains cells once, and writes a table and a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from worldmodel.analysis.report.section import Figure as ReportFigure
from worldmodel.analysis.report.section import Section, Table
from worldmodel.experiments.benchmark.provenance import effort_text, provenance
from worldmodel.experiments.benchmark.runner import Runner
from worldmodel.experiments.benchmark.suite import Cell, cells_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Stopped(Exception):
    """A signal stopped the study; its runs can be resumed."""


class StudyRunner:
    """Train into `out` with `jobs` processes of one thread each, and write the study's results there."""

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
        """Return one cell for each method and seed.

        Args:
            methods: overrides by name.
            common: overrides of all methods, before their own.
            seeds: of each method.
            evaluate: overrides of an evaluation after the training, which runs with the cell's seed.

        Raises:
            ConfigError: for bad overrides.
        """
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
        """Run the cells that are not finished. Raises Stopped after a signal, RuntimeError where one failed."""
        runner = Runner(cells, self.jobs)
        runner.run()
        if runner.signalled:
            raise Stopped(runner.signalled)
        if failed := [str(folder) for folder, state in runner.state.items() if state == "failed"]:
            raise RuntimeError(f"{failed[0]}: failed, see its log.txt")

    def write(self, table: Table, notes: str, figure: Figure) -> None:
        """Write table.csv, table.md and plot.png.

        The notes describe the computation; the provenance of the runs is appended to them.
        """
        if self.asked and (made := provenance(self.name, self.asked))["runs"]:
            notes += f" {effort_text(made).strip()}"
        Section(table.caption, tables=[table], figures=[ReportFigure.of(figure, dpi=110)], text=notes).write(self.out)


def cpu_seconds(cell: Cell) -> float:
    """Return the CPU seconds of a run's training."""
    return json.loads((cell.folder / "run.json").read_text())["cpu_s"]


def report_of(cell: Cell) -> dict[str, Any]:
    """Return the report.json of a cell's evaluation."""
    return json.loads((cell.folder / "report.json").read_text())
