"""Tables of a benchmark from results.csv."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from worldmodel.analysis.report.cells import format_interval
from worldmodel.analysis.report.section import Table
from worldmodel.analysis.statistics import improvement, interval, iqm_interval, optimality_gap
from worldmodel.experiments.benchmark.results import FINALS, Results, final_name

PERCENT = "95 %"


def overview(results: Results, env: str) -> Table:
    """Seeds that reach the threshold, median steps and seconds to it, and the final interquartile mean, by method."""
    threshold = results.only("threshold", env)
    has = threshold is not None
    goal = [f"seeds ≥ {threshold:g}", "median steps to it", "median seconds"] if has else ["seeds"]
    rows = []
    for method in results.methods:
        scores = results.values("score", env, method)
        if not len(scores):
            continue
        steps, seconds = (results.values(f"{x}_to_threshold", env, method) for x in ("steps", "seconds"))
        solved = f"{np.isfinite(steps).sum()} of {len(scores)}" if has else str(len(scores))
        times = [_count(np.median(steps)), _seconds(np.median(seconds))] if has else []
        last = results.values(final_name(results.metric), env, method)
        rows.append([method, solved, *times, format_interval(*iqm_interval(last))])
    return Table(env, ["method", *goal, f"{_word(results)} at the end, IQM [{PERCENT}]"], rows)


REFERENCES = ("none", "count")  # methods that each method is compared with, beside the default
FEW = 8  # methods, up to which every pair is compared


def by_method(results: Results, env: str) -> Table:
    """Performance of a method in one environment; a dash where a figure is not recorded."""
    named = {
        "seeds": lambda m: str(len(results.values("score", env, m))),
        "failed": lambda m: _failed(results, env, m),
        "steps to first success": lambda m: _median(results.values("steps_to_first_success", env, m)),
        "steps to threshold": lambda m: _median(results.values("steps_to_threshold", env, m)),
        f"{_word(results)}, IQM [{PERCENT}]": lambda m: _iqm(results.values(final_name(results.metric), env, m)),
        **{f"P(> {x})": lambda m, x=x: _beats(results, m, x, [env]) for x in references(results)},
    }
    return _by_method(results, env, env, named)


def behaviour(results: Results, env: str) -> Table | None:
    """Exploration, alive value and cost of a method in one environment; None where nothing is recorded."""
    named = {
        "cells of an episode": lambda m: _mean(results.values("coverage_episode_final", env, m), 1),
        "rooms of an episode": lambda m: _mean(results.values("rooms_episode_final", env, m), 2),
        "success given the door": lambda m: _mean(results.values("door_success_final", env, m), 2),
        "alive value": lambda m: _mean(results.values("alive_value_final", env, m), 3),
        "CPU seconds": lambda m: _mean(results.values("cpu_s", env, m), 0),
        "peak memory, MB": lambda m: _mean(results.values("peak_memory_mb", env, m), 0),
    }
    table = _by_method(results, env, f"{env}: behaviour and cost", named)
    return table if len(table.header) > 1 else None


def _by_method(results: Results, env: str, caption: str, named: dict[str, Callable[[str], str]]) -> Table:
    """Return a table of columns that have a value of any method."""
    methods = [m for m in results.methods if ("score", env, m) in results.cells]
    columns = {name: [of(m) for m in methods] for name, of in named.items()}
    columns = {name: cells for name, cells in columns.items() if any(x != "–" for x in cells)}
    return Table(caption, ["method", *columns], [list(row) for row in zip(methods, *columns.values(), strict=True)])


def references(results: Results) -> list[str]:
    """Methods that each method is compared with."""
    return [m for m in dict.fromkeys((*REFERENCES, results.default)) if m in results.methods]


def against_references(results: Results) -> Table:
    """Probability that a run of the row's method scores higher than one of a reference, over all environments."""
    names = references(results)
    rows = [[m, *(_beats(results, m, x, results.envs_of(m, x)) for x in names)] for m in results.methods]
    return Table(f"P(row > reference) [{PERCENT}]", ["method", *names], rows)


def aggregate(results: Results) -> Table:
    """Scores over all environments of a method."""
    rows = []
    for method in results.methods:
        envs = results.envs_of(method)
        scores = results.scores(method, envs)
        gap = interval(optimality_gap, scores)
        mean = interval(lambda x: x.mean(-1), scores)
        spread = [format_interval(*x) for x in (iqm_interval(scores), mean, gap)]
        rows.append([method, str(len(envs)), str(sum(map(len, scores))), *spread])
    header = ["method", "environments", "runs", *(f"{x} [{PERCENT}]" for x in ("IQM", "mean", "optimality gap"))]
    return Table("score over all environments", header, rows)


def improvements(results: Results) -> Table:
    """Probability that a run of the row's method scores higher than one of the column's."""
    found: dict[tuple[str, str], tuple[float, ...]] = {}
    for i, x in enumerate(results.methods):
        for y in results.methods[i + 1 :]:
            if envs := results.envs_of(x, y):
                p, low, high = improvement(results.scores(x, envs), results.scores(y, envs), draws=2_000)
                found[x, y], found[y, x] = (p, low, high), (1 - p, 1 - high, 1 - low)
    rows = [
        [x, *(format_interval(*found[x, y], digits=2) if (x, y) in found else "–" for y in results.methods)]
        for x in results.methods
    ]
    return Table(f"P(row > column) [{PERCENT}]", ["", *results.methods], rows)


def brittleness(results: Results, env: str) -> Table:
    """Spread of the seeds, and the share of failed ones."""
    has = results.only("threshold", env) is not None
    rows = []
    for method in results.methods:
        scores = results.values("score", env, method)
        if not len(scores):
            continue
        failed = np.isinf(results.values("steps_to_threshold", env, method))
        crashed = int((results.values("finished", env, method) == 0).sum())
        low, middle, high = np.quantile(scores, [0.25, 0.5, 0.75])
        spread = [
            f"{x:.3f}" for x in (scores.min(), middle, scores.max(), high - low, scores.std(ddof=len(scores) > 1))
        ]
        rows.append([method, str(len(scores)), f"{failed.mean():.0%}" if has else "–", str(crashed), *spread])
    header = ["method", "seeds", "failed", "unfinished", "min", "median", "max", "interquartile range", "std"]
    return Table(env, header, rows)


def to_threshold(results: Results, env: str) -> Table | None:
    """Steps and wall-clock to the threshold: median and range; seeds that never reach it count as infinitely slow."""
    if results.only("threshold", env) is None:
        return None
    rows = []
    for method in results.methods:
        steps, seconds = (results.values(f"{x}_to_threshold", env, method) for x in ("steps", "seconds"))
        if len(steps):
            words = (_range(steps, _count), _range(seconds, _seconds))
            rows.append([method, f"{np.isfinite(steps).sum()} of {len(steps)}", *words])
    threshold = results.only("threshold", env)
    return Table(env, ["method", f"reached {threshold:g}", "steps: median [range]", "seconds: median [range]"], rows)


def finals(results: Results, env: str) -> Table:
    """Last values of all logged metrics, and areas under curves."""
    return _means(results, env, [*(f"{k}_auc" for k in results.curve_names), *(final_name(k) for k in FINALS)])


def evaluated(results: Results, env: str) -> Table | None:
    """Results of the evaluation after the training, by behaviour."""
    table = _means(results, env, results.evaluated)
    return table if len(table.header) > 1 else None


def _means(results: Results, env: str, names: list[str]) -> Table:
    """Means over seeds and their standard deviations, of the metrics that exist."""
    names = [n for n in names if any(len(results.values(n, env, m)) for m in results.methods)]
    rows = []
    for method in results.methods:
        if ("score", env, method) in results.cells:
            values = [results.values(n, env, method) for n in names]
            rows.append(
                [method, *(f"{x.mean():.3f} ± {x.std(ddof=len(x) > 1):.3f}" if len(x) else "–" for x in values)]
            )
    return Table(env, ["method", *names], rows)


def coverage(results: Results, env: str) -> Table | None:
    """Places visited by the end, on average over the budget, and within an episode; rooms, where reported."""
    names = {
        "coverage_final": "at the end, IQM",
        "coverage_auc": "area under the curve / budget, IQM",
        "coverage_episode_final": "within an episode at the end, IQM",
        "rooms_episode_final": "rooms of an episode at the end, IQM",
    }
    names = {n: words for n, words in names.items() if any(len(results.values(n, env, m)) for m in results.methods)}
    if not names:
        return None
    rows = []
    for method in results.methods:
        values = [results.values(n, env, method) for n in names]
        if any(map(len, values)):
            rows.append([method, *(format_interval(*iqm_interval(x)) if len(x) else "–" for x in values)])
    return Table(env, ["method", *(f"{x} [{PERCENT}]" for x in names.values())], rows)


def television(results: Results) -> Table | None:
    """Share of the noisy TV's actions, where there are any: at the end, and of all steps."""
    envs = [e for e in results.envs if any(len(results.values("tv_action_share_auc", e, m)) for m in results.methods)]
    if not envs:
        return None
    columns = [(env, ending, words) for env in envs for ending, words in (("final", "at the end"), ("auc", "in all"))]
    rows = []
    for method in results.methods:
        values = [results.values(f"tv_action_share_{ending}", env, method) for env, ending, _ in columns]
        if any(map(len, values)):
            rows.append([method, *(format_interval(*iqm_interval(x)) if len(x) else "–" for x in values)])
    header = ["method", *(f"{env}, {words}" for env, _, words in columns)]
    return Table(f"share of the TV's actions, IQM [{PERCENT}]", header, rows)


def _word(results: Results) -> str:
    return "return" if results.metric == "return_ext" else results.metric


def _failed(results: Results, env: str, method: str) -> str:
    """Seeds that never reached the threshold, or that did not finish where there is none."""
    steps = results.values("steps_to_threshold", env, method)
    return str(int(np.isinf(steps).sum() if len(steps) else (results.values("finished", env, method) == 0).sum()))


def _beats(results: Results, method: str, other: str, envs: list[str]) -> str:
    if method == other or not envs:
        return "–"
    found = improvement(results.scores(method, envs), results.scores(other, envs), draws=2_000)
    return format_interval(*found, digits=2)


def _median(values: np.ndarray) -> str:
    return _range(values, short) if len(values) else "–"


def _mean(values: np.ndarray, digits: int) -> str:
    return f"{values.mean():,.{digits}f}" if len(values) else "–"


def _iqm(values: np.ndarray) -> str:
    return format_interval(*iqm_interval(values)) if len(values) else "–"


def _count(value: float) -> str:
    return f"{value:,.0f}" if np.isfinite(value) else "never"


def _seconds(value: float) -> str:
    return f"{value:.0f}" if np.isfinite(value) else "–"


def _range(values: np.ndarray, word: Callable[[float], str]) -> str:
    return f"{word(np.median(values))} [{word(values.min())}, {word(values.max())}]"


def short(steps: float) -> str:
    """Format a number of steps in thousands or millions; inf is `never`."""
    if np.isinf(steps):
        return "never"
    return f"{steps / 1e6:.3g}M" if steps >= 1e6 else f"{steps / 1e3:.3g}k" if steps >= 1e3 else f"{steps:.0f}"
