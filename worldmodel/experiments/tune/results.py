"""Results of the tuning runs in results.csv: a row for each finished run."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from omegaconf import OmegaConf

from worldmodel.errors import ConfigError
from worldmodel.experiments.benchmark.results import area
from worldmodel.experiments.benchmark.suite import Cell
from worldmodel.files import write_csv
from worldmodel.training.learning_curve import read_metrics
from worldmodel.training.run_record import read_record

FIGURES = ("auc", "return_final", "success", "door_success", "rooms")
COSTS = ("env_steps", "wall_s", "cpu_s", "peak_memory_mb")
FIXED = ("stage", "env", "signal", "draw", "seed", *FIGURES, *COSTS, "git", "overrides", "own", "own_value")


class Run(NamedTuple):
    """Identity and figures of a run. nan: not measured."""

    stage: int
    signal: str
    draw: int
    seed: int
    figures: tuple[float, ...]  # of FIGURES
    about: dict[str, str]  # the whole row


@dataclass(frozen=True)
class Trial:
    """A draw of a signal on the world of a stage, and its cells."""

    stage: int
    signal: str
    draw: int
    overrides: tuple[str, ...]  # of the signal and the draw, without those of the world
    own: str | None  # key of the signal's own setting
    cells: list[Cell]


def figures_of(cell: Cell) -> dict[str, float]:
    """Return the figures of a finished run.

    `auc` is the mean of the return over the budget; a run that ended early keeps its last value. `rooms` is the number
    of rooms in an episode. The others are the last values in metrics.csv.
    """
    found = read_metrics(cell.folder / "metrics.csv")
    last = {key: float(values[-1]) for key, values in found.items()}
    columns = {
        "return_final": "return_ext",
        "success": "success",
        "door_success": "door_success",
        "rooms": "rooms_episode",
    }
    return {"auc": area(found["env_steps"], found["return_ext"], cell.budget, 0.0)} | {
        name: last.get(column, np.nan) for name, column in columns.items()
    }


def row_of(trial: Trial, cell: Cell, keys: Sequence[str]) -> list[Any]:
    """Return the row of a finished run: FIXED, and the values of the common settings."""
    record, figures = read_record(cell.folder / "run.json"), figures_of(cell)
    cfg = OmegaConf.load(cell.folder / "config.yaml")
    about = {"stage": trial.stage, "env": cell.env, "signal": trial.signal, "draw": trial.draw, "seed": cell.seed}
    about |= {name: float(f"{value:.6g}") for name, value in figures.items()}
    about |= {name: record.get(name) for name in (*COSTS, "git")} | {"overrides": " ".join(trial.overrides)}
    about |= {"own": trial.own, "own_value": trial.own and _setting(cfg, trial.own)}
    return [*(about[name] for name in FIXED), *(_setting(cfg, key) for key in keys)]


def _setting(cfg: Any, key: str) -> Any:
    value = OmegaConf.select(cfg, key)
    return cfg.optimizer.lr if value is None and key.startswith("optimizer.part_lr.") else value


class ResultsFile:
    """results.csv, to which finished runs are appended. Each run has one row.

    Raises ConfigError for a file with other columns.
    """

    def __init__(self, path: Path, keys: Sequence[str]):
        self.path, self.keys = path, list(keys)
        header = [*FIXED, *self.keys]
        if not path.exists():
            write_csv(path, [header])
        with path.open(newline="") as file:
            if next(csv.reader(file), []) != header:
                raise ConfigError(f"out={path.parent}: {path.name} has other columns, choose another out")
        self.known = {run[:4] for run in read_runs(path)}

    def has(self, trial: Trial, cell: Cell) -> bool:
        """Return whether the file has the row of a run."""
        return (trial.stage, trial.signal, trial.draw, cell.seed) in self.known

    def append(self, trial: Trial, cell: Cell) -> None:
        """Append the row of a finished run, unless the file has it."""
        if self.has(trial, cell):
            return
        text = io.StringIO(newline="")
        csv.writer(text).writerow(row_of(trial, cell, self.keys))
        with self.path.open("ab", buffering=0) as file:
            file.write(text.getvalue().encode())
        self.known.add((trial.stage, trial.signal, trial.draw, cell.seed))


def read_runs(path: Path) -> list[Run]:
    """Return the runs of results.csv; of a repeated run the last row. A partial last row is left out.

    Raises ConfigError where the file is missing or damaged.
    """
    if not path.is_file():
        raise ConfigError(f"out={path.parent}: has no {path.name}")
    text = path.read_text()
    rows: Iterable[Mapping[str, str]] = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
    found: dict[tuple[int, str, int, int], Run] = {}
    try:
        for row in rows:
            identity = int(row["stage"]), row["signal"], int(row["draw"]), int(row["seed"])
            found[identity] = Run(*identity, tuple(float(row[name]) for name in FIGURES), dict(row))
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"out={path.parent}: {path.name} cannot be read ({error!r})") from None
    return list(found.values())
