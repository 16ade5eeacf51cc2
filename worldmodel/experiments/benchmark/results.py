"""Results of the cells in results.csv, the only input of a report."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from worldmodel.errors import ConfigError
from worldmodel.experiments.benchmark.suite import Cell
from worldmodel.files import write_csv
from worldmodel.training.learning_curve import read_metrics

CURVES = ("return_ext", "coverage", "coverage_episode", "rooms_episode", "tv_action_share", "tv_rew_int_share")
"""Columns of metrics.csv that results.csv has as curves."""
FINALS = (
    *CURVES,
    "success",
    "door_share",
    "door_success",
    "length",
    "alive_value",
    "delta_skill",
    "entropy",
    "env_faults",
)
COSTS = ("cpu_s", "peak_memory_mb")  # of run.json
EVALUATED = ("return_mean", "success")  # of each behaviour in report.json
POINTS = 60  # of a curve, at most


class Row(NamedTuple):
    """One number. `env` is the suite's name of the environment.

    `env_steps` and `wall_s` belong to a point of a curve, or to the end of the run.
    """

    suite: str
    env: str
    method: str
    seed: int
    env_steps: int
    wall_s: float
    metric: str
    value: float


def final_name(column: str) -> str:
    """Name in results.csv of the last value of a column of metrics.csv."""
    return "return_final" if column == "return_ext" else f"{column}_final"


def rows_of(suite: str, cell: Cell) -> list[Row]:
    """Return all numbers of a cell. A cell without results counts at the bottom of its environment's range.

    - `score`: the last value of the suite's metric, scaled so that the suite's range is 0 to 1.
    - `<metric>_auc`: the mean of the suite's metric over the budget; a run that ended early keeps its last value, and
      before the first value it counts at the bottom. It is followed by those of the other curves, whose bottom is 0.
    - `steps_to_threshold`, `seconds_to_threshold`: where the metric first reaches the threshold; inf if never.
    - `steps_to_first_success`: where the success of the last episodes is first above 0; inf if never.
    - `cpu_s`, `peak_memory_mb`: of the run's processes, where run.json has them.
    - `finished`: 1 where the run ended as configured. `threshold`, `budget`: as configured.
    - `evaluated_<behaviour>_…`: results of the evaluation after the training, where the suite has one.
    - a last value of each column, and thinned curves under the names of the columns.
    """
    path, record = cell.folder / "metrics.csv", cell.folder / "run.json"
    found = read_metrics(path) if path.exists() else {}
    low, high = cell.world.score
    steps, wall = (found[k] if found else np.zeros(1) for k in ("env_steps", "wall_s"))
    metric = found.get(cell.metric, np.full(len(steps), np.nan))
    last = low if np.isnan(metric[-1]) else metric[-1]
    values = {
        "finished": float(record.exists() and json.loads(record.read_text())["status"] == "done"),
        "budget": cell.budget,
        "score": (last - low) / (high - low),
        f"{cell.metric}_auc": area(steps, metric, cell.budget, low),
    }
    if cell.world.threshold is not None:
        values["threshold"] = cell.world.threshold
        values["steps_to_threshold"], values["seconds_to_threshold"] = reached(
            steps, wall, metric, cell.world.threshold
        )
    if "success" in found and not np.isnan(found["success"]).all():
        values["steps_to_first_success"] = reached(steps, wall, found["success"], np.nextafter(0, 1))[0]
    measured = json.loads(record.read_text()) if record.exists() else {}
    values |= {name: measured[name] for name in COSTS if measured.get(name) is not None}
    values |= {final_name(k): found[k][-1] for k in FINALS if k in found and not np.isnan(found[k][-1])}
    values |= {final_name(cell.metric): last}
    values |= {f"{k}_auc": area(steps, found[k], cell.budget, 0.0) for k in CURVES if k in found and k != cell.metric}
    report = cell.folder / "report.json"
    if cell.evaluate is not None and report.exists():
        content: dict[str, Any] = json.loads(report.read_text())
        behaviours = content.get("returns") or {k: content[k] for k in ("greedy", "sampled") if k in content}
        evaluated = {f"evaluated_{name}_{k}": x.get(k) for name, x in behaviours.items() for k in EVALUATED}
        values |= {name: x for name, x in evaluated.items() if x is not None}

    def row(at: int, name: str, value: float) -> Row:
        return Row(suite, cell.world.name, cell.method, cell.seed, int(steps[at]), float(wall[at]), name, float(value))

    rows = [row(-1, name, value) for name, value in values.items()]
    for name in dict.fromkeys((cell.metric, *CURVES)):
        known = np.flatnonzero(~np.isnan(found[name])) if name in found else []
        if len(known):
            thinned = known[np.unique(np.linspace(0, len(known) - 1, POINTS).round().astype(int))]
            rows += [row(i, name, found[name][i]) for i in thinned]
    return rows


def reached(steps: np.ndarray, wall: np.ndarray, metric: np.ndarray, threshold: float) -> tuple[float, float]:
    """Return the environment steps and seconds at which a metric first reaches a threshold; inf if never."""
    where = np.flatnonzero(metric >= threshold)  # nan compares as False
    return (steps[where[0]], wall[where[0]]) if len(where) else (np.inf, np.inf)


def area(steps: np.ndarray, metric: np.ndarray, budget: int, bottom: float) -> float:
    """Mean over 0 to `budget` steps of a curve whose points hold until the next one."""
    edges = np.clip([0, *steps, max(budget, steps[-1])], 0, budget)
    return float((np.diff(edges) * [bottom, *np.nan_to_num(metric, nan=bottom)]).sum() / budget)


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write results.csv, with six significant digits."""
    write_csv(path, [Row._fields, *([_rounded(x) if isinstance(x, float) else x for x in row] for row in rows)])


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


class Results:
    """Rows of results.csv by metric, environment, method and seed, in the order of the file."""

    def __init__(self, rows: Iterable[Row]):
        self.cells: dict[tuple[str, str, str], dict[int, list[Row]]] = {}
        self.suite, envs, methods = "", {}, {}
        for row in rows:
            self.suite, envs[row.env], methods[row.method] = row.suite, None, None
            self.cells.setdefault((row.metric, row.env, row.method), {}).setdefault(row.seed, []).append(row)
        self.envs, self.methods = list(envs), list(methods)
        names = dict.fromkeys(key[0] for key in self.cells)
        self.metric = next((n.removesuffix("_auc") for n in names if n.endswith("_auc")), "score")
        self.evaluated = [n for n in names if n.startswith("evaluated_")]
        self.curve_names = [self.metric] + [n for n in CURVES if n != self.metric and n in names]

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read a file. Raises ConfigError where it does not exist or has other columns."""
        if not path.is_file():
            raise ConfigError(f"report={path.parent}: has no {path.name}")
        with path.open(newline="") as file:
            lines = list(csv.reader(file))
        try:
            if tuple(lines[0]) != Row._fields:
                raise ValueError(f"its columns are not {' '.join(Row._fields)}")
            rows = [Row(s, e, m, int(seed), int(n), float(w), k, float(v)) for s, e, m, seed, n, w, k, v in lines[1:]]
            if not any(row.metric == "score" for row in rows):
                raise ValueError("there is no metric 'score' in it")
        except (ValueError, IndexError) as error:
            raise ConfigError(f"report={path.parent}: {path.name} cannot be read ({error})") from None
        return cls(rows)

    def values(self, metric: str, env: str, method: str) -> np.ndarray:
        """Values (seeds,) of a metric with one value for each seed; empty where there is none."""
        return np.array([rows[-1].value for rows in self.cells.get((metric, env, method), {}).values()])

    def scores(self, method: str, envs: Iterable[str]) -> list[np.ndarray]:
        """One array (seeds,) of scores for each environment."""
        return [self.values("score", env, method) for env in envs]

    def envs_of(self, *methods: str) -> list[str]:
        """Environments in which all of these methods ran."""
        return [e for e in self.envs if all(("score", e, m) in self.cells for m in methods)]

    def curves(self, metric: str, env: str, method: str, grid: np.ndarray) -> np.ndarray:
        """Curves (seeds, points), interpolated linearly on a grid of environment steps.

        A run that ended early keeps its last value.
        """
        seeds = self.cells.get((metric, env, method), {}).values()
        return np.array([np.interp(grid, [r.env_steps for r in rows], [r.value for r in rows]) for rows in seeds])

    @property
    def default(self) -> str:
        """Method that the others are drawn against: `surprise` or `default`, else the first one."""
        return next((m for m in ("surprise", "default") if m in self.methods), self.methods[0])

    def only(self, metric: str, env: str) -> float | None:
        """Value of a metric that all cells of an environment share, such as the threshold."""
        return next((self.values(metric, env, m)[0] for m in self.methods if (metric, env, m) in self.cells), None)
