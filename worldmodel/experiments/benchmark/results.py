"""results.csv: what the cells came to, and the only thing that a report needs."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from worldmodel.errors import ConfigError
from worldmodel.experiments.benchmark.suite import Cell
from worldmodel.training.learning_curve import read_metrics

CURVES = ("return_ext", "coverage", "coverage_episode", "rooms_episode", "tv_action_share", "tv_rew_int_share")
"""Columns of metrics.csv that are kept as curves."""
FINALS = (*CURVES, "success", "length", "delta_skill", "entropy", "env_faults")
EVALUATED = ("return_mean", "success")  # of each behaviour in report.json
POINTS = 60  # of a curve, at most


class Row(NamedTuple):
    """One number. `env` is the suite's word for the environment; `env_steps` and `wall_s` are those of a curve's point,
    or of the run's end."""

    suite: str
    env: str
    method: str
    seed: int
    env_steps: int
    wall_s: float
    metric: str
    value: float


def final_name(column: str) -> str:
    """What the last value of a column of metrics.csv is called in results.csv."""
    return "return_final" if column == "return_ext" else f"{column}_final"


def rows_of(suite: str, cell: Cell) -> list[Row]:
    """All numbers of a cell. One that left none counts at the bottom of its environment's range, it is never left out.

    - `score`: the last value of the suite's metric, 0 and 1 where the suite's range says so.
    - `<metric>_auc`: the mean of the suite's metric over the budget; a run that ended early keeps its last value, and
      before the first value it counts at the bottom. After it those of the other curves,
      from 0.
    - `steps_to_threshold`, `seconds_to_threshold`: where the metric first reaches the threshold; inf if never.
    - `finished`: 1 where the run ended as it should. `threshold`, `budget`: as configured.
    - `evaluated_<behaviour>_…`: what the evaluation after the training said, where the suite asks for one.
    - a last value of each column, and thinned curves under the columns' own names.
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
    values |= {final_name(k): found[k][-1] for k in FINALS if k in found and not np.isnan(found[k][-1])}
    values |= {final_name(cell.metric): last}
    values |= {f"{k}_auc": area(steps, found[k], cell.budget, 0.0) for k in CURVES if k in found and k != cell.metric}
    report = cell.folder / "report.json"
    if cell.evaluate is not None and report.exists():
        said: dict[str, Any] = json.loads(report.read_text())
        played = said.get("returns") or {name: said[name] for name in ("greedy", "sampled") if name in said}
        judged = {f"evaluated_{name}_{k}": x.get(k) for name, x in played.items() for k in EVALUATED}
        values |= {name: x for name, x in judged.items() if x is not None}

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
    """Environment steps and wall-clock seconds at which a metric first reaches a threshold; inf if never."""
    where = np.flatnonzero(metric >= threshold)  # nan compares as False
    return (steps[where[0]], wall[where[0]]) if len(where) else (np.inf, np.inf)


def area(steps: np.ndarray, metric: np.ndarray, budget: int, bottom: float) -> float:
    """Mean over 0 to `budget` steps of a curve whose points hold until the next one."""
    edges = np.clip([0, *steps, max(budget, steps[-1])], 0, budget)
    return float((np.diff(edges) * [bottom, *np.nan_to_num(metric, nan=bottom)]).sum() / budget)


def write(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        writer.writerows([_short(x) if isinstance(x, float) else x for x in row] for row in rows)


def _short(value: float) -> float:
    return float(f"{value:.6g}")


class Results:
    """results.csv, by metric, environment, method and seed; in the order in which they stand there."""

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
        """Raises ConfigError where there is no such file, or it isn't one of ours."""
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
            raise ConfigError(f"report={path.parent}: {path.name} can't be read ({error})") from None
        return cls(rows)

    def values(self, metric: str, env: str, method: str) -> np.ndarray:
        """(seeds,) of a metric that each seed has once; empty where there is none."""
        return np.array([rows[-1].value for rows in self.cells.get((metric, env, method), {}).values()])

    def scores(self, method: str, envs: Iterable[str]) -> list[np.ndarray]:
        """One array (seeds,) of scores for each environment."""
        return [self.values("score", env, method) for env in envs]

    def envs_of(self, *methods: str) -> list[str]:
        """Environments in which all of these methods ran."""
        return [e for e in self.envs if all(("score", e, m) in self.cells for m in methods)]

    def curves(self, metric: str, env: str, method: str, grid: np.ndarray) -> np.ndarray:
        """(seeds, points) on a grid of environment steps, between the known points by straight lines; a run that
        ended early keeps its last value."""
        seeds = self.cells.get((metric, env, method), {}).values()
        return np.array([np.interp(grid, [r.env_steps for r in rows], [r.value for r in rows]) for rows in seeds])

    def only(self, metric: str, env: str) -> float | None:
        """A metric that is the same for all cells of an environment, such as the threshold."""
        return next((self.values(metric, env, m)[0] for m in self.methods if (metric, env, m) in self.cells), None)
