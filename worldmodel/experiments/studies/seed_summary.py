"""Figures of checkpoint reports over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from worldmodel.analysis.report.canvas import panels
from worldmodel.analysis.report.section import Table
from worldmodel.analysis.statistics import iqm_interval
from worldmodel.errors import ConfigError
from worldmodel.experiments.benchmark.suite import Cell
from worldmodel.experiments.study_runner import StudyRunner, cpu_seconds, report_of

CPU = "CPU seconds of training"


def seed_summary(
    runner: StudyRunner,
    *,
    agents: dict[str, list[str]],
    common: list[str],
    seeds: list[int],
    part: str,
    figures: dict[str, str],
    episodes: int,
) -> None:
    """Summarise figures of each agent over seeds: interquartile mean with a bootstrap interval, and the extremes.

    Args:
        runner: trains the runs and writes the results.
        agents: overrides by name.
        common: overrides of all runs.
        seeds: of each agent.
        part: of `worldmodel.evaluate`.
        figures: label and path of each figure in this part of report.json, with a dot between keys; "a / b" is a
            quotient.
        episodes: of the evaluation, which has the seed of the run.

    Raises:
        ConfigError: where a report has no such part or figure.
    """
    cells = runner.cells(agents, common, seeds, [f"parts=[{part}]", f"episodes={episodes}"])
    runner.train(cells)
    found: dict[str, np.ndarray] = {}
    for name in agents:
        runs = [c for c in cells if c.method == name]
        found[name] = np.array([[*(figure(c, part, path) for path in figures.values()), cpu_seconds(c)] for c in runs])
    header, rows = [*figures, CPU], []
    drawing, axes = panels(len(figures), height=0.9 + 0.3 * len(agents))
    for i, (name, values) in enumerate(found.items()):  # values (seeds, figures)
        rows.append([name, *(format_summary(column) for column in values.T)])
        for axis, column in zip(axes, values.T, strict=False):
            axis.plot(column, np.full(len(column), i), "o", ms=5, alpha=0.6, color=f"C{i}")
    for axis, label in zip(axes, figures, strict=True):
        axis.set(xlabel=label, yticks=range(len(agents)), yticklabels=list(agents), ylim=(len(agents) - 0.5, -0.5))
        axis.grid(alpha=0.3)
    about = "; ".join(f"{name}: {' '.join([*common, *overrides])}" for name, overrides in agents.items())
    runner.write(
        Table(f"{part.replace('_', ' ')}, seed by seed", ["agent", *header], rows),
        f"Interquartile mean [95 % of its bootstrap], least to most; seeds {', '.join(map(str, seeds))}, each "
        f"evaluated on {episodes} episodes of its own. {about}.",
        drawing,
    )


def figure(cell: Cell, part: str, path: str) -> float:
    """Return the figure of a cell's report at a path. Raises ConfigError."""
    report = report_of(cell)
    if part not in report:
        raise ConfigError(f"study.part={part}: {cell.folder / 'report.json'} has no such part")
    values = [_at(report[part], one.strip(), path) for one in path.split(" / ")]
    return values[0] if len(values) == 1 else values[0] / values[1]


def format_summary(values: Sequence[float]) -> str:
    """Format a summary with five digits; some figures differ from their optimum in the third."""
    middle, low, high = iqm_interval(np.asarray(values))
    return f"{middle:.5g} [{low:.5g}, {high:.5g}], {min(values):.5g} to {max(values):.5g}"


def _at(node: Any, path: str, whole: str) -> float:
    for key in path.split("."):
        if not isinstance(node, dict) or key not in node:
            allowed = ", ".join(node) if isinstance(node, dict) else "none"
            raise ConfigError(f"study.figures={whole}: no {key!r}, allowed there are {allowed}")
        node = node[key]
    if isinstance(node, bool) or not isinstance(node, int | float):
        raise ConfigError(f"study.figures={whole}: {node} is no number")
    return float(node)
