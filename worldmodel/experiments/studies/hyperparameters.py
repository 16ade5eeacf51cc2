"""Importance of hyperparameters, from an Optuna study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from worldmodel.analysis.report.canvas import panels
from worldmodel.analysis.report.section import Table
from worldmodel.errors import ConfigError
from worldmodel.experiments.benchmark.results import area
from worldmodel.experiments.benchmark.suite import Cell
from worldmodel.experiments.study_runner import StudyRunner
from worldmodel.training.learning_curve import read_metrics

KEYS = ({"low", "high"}, {"low", "high", "log"}, {"choices"})


def hyperparameters(
    runner: StudyRunner,
    *,
    space: dict[str, dict[str, Any]],
    common: list[str],
    seeds: list[int],
    trials: int,
    batch: int = 2,
    metric: str = "return_ext",
) -> None:
    """Search `space` with TPE for the largest mean of a metric over the budget, and rank the parameters.

    The importance of a parameter is its share of the metric's variance: functional ANOVA (Hutter et al. 2014) of a
    random forest over the trials. Hydra's own sweeper needs an Optuna below 3 and cannot resume a search. The search is
    a function of its arguments, so that a second start continues after the finished trials.

    Args:
        runner: trains the runs and writes the results.
        space: a range (`low`, `high`, perhaps `log`; integers stay integers) or `choices` for each key.
        common: overrides of all runs.
        seeds: of each trial.
        trials: number of trials.
        batch: trials in parallel.
        metric: column of metrics.csv.

    Raises:
        ConfigError: for a bad space, or where optuna is not installed.
    """
    try:
        import optuna
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances
    except ImportError:
        raise ConfigError("study=hyperparameters: needs optuna, which is not installed") from None
    for name, node in space.items():
        if set(node) not in KEYS:
            raise ConfigError(f"study.space.{name}={dict(node)}: allowed are low, high and log, or choices")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    for first in range(0, trials, batch):
        asked = [search.ask() for _ in range(min(batch, trials - first))]
        chosen = [{name: _suggest(t, name, node) for name, node in space.items()} for t in asked]
        names = {f"trial{t.number}": t for t in asked}
        overrides = [[f"{k}={v}" for k, v in values.items()] for values in chosen]
        cells = runner.cells(dict(zip(names, overrides, strict=True)), common, seeds)
        runner.train(cells)
        for name, t in names.items():
            search.tell(t, float(np.mean([_mean(c, metric) for c in cells if c.method == name])))
    values = [t.value for t in search.trials]
    varied = len(set(values)) > 1 and trials > 1  # else no parameter explains anything
    evaluator = FanovaImportanceEvaluator(seed=0)
    shares = get_param_importances(search, evaluator=evaluator) if varied else dict.fromkeys(space, float("nan"))
    best = search.best_trial
    rows = [[name, f"{shares[name]:.3f}", _range(space[name]), _format(best.params[name])] for name in shares]
    figure, (left, right) = panels(2)
    left.barh(list(shares), list(shares.values()))
    left.invert_yaxis()
    left.set(xlabel="importance")
    name = next(iter(shares))
    right.plot([t.params[name] for t in search.trials], values, "o")
    right.set(xlabel=name, ylabel=f"mean {metric}", xscale="log" if space[name].get("log") else "linear")
    runner.write(
        Table(f"what explains {metric}", ["parameter", "importance", "searched", "best"], rows),
        f"{trials} trials (TPE) of {len(seeds)} seed{'s' * (len(seeds) > 1)} each ({', '.join(map(str, seeds))}); the "
        f"objective is the mean of {metric} over the budget: best {max(values):.3f}, median {np.median(values):.3f}, "
        f"worst {min(values):.3f}. Importance is the share of the variance of a random forest fitted to the trials "
        "that the parameter alone explains (functional ANOVA; Optuna makes the shares sum to 1); with few trials it is "
        "a rough guess.",
        figure,
    )


def _suggest(trial: Any, name: str, node: Mapping[str, Any]) -> Any:
    if "choices" in node:
        return trial.suggest_categorical(name, list(node["choices"]))
    low, high, log = node["low"], node["high"], node.get("log", False)
    whole = isinstance(low, int) and isinstance(high, int)
    return (trial.suggest_int if whole else trial.suggest_float)(name, low, high, log=log)


def _mean(cell: Cell, metric: str) -> float:
    found = read_metrics(cell.folder / "metrics.csv")
    if metric not in found:
        raise ConfigError(f"study.metric={metric}: allowed are {', '.join(found)}")
    return area(found["env_steps"], found[metric], cell.budget, 0.0)


def _range(node: Mapping[str, Any]) -> str:
    if "choices" in node:
        return ", ".join(map(str, node["choices"]))
    return f"{node['low']:g} to {node['high']:g}" + (" (log)" if node.get("log") else "")


def _format(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
