"""Figures of a benchmark from results.csv."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from worldmodel.analysis.report.canvas import canvas, panels
from worldmodel.analysis.statistics import band, iqm, iqm_interval, performance_profile
from worldmodel.experiments.benchmark.results import Results
from worldmodel.experiments.benchmark.tables import short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRID = 100  # points of a learning curve
FEW = 8  # methods, up to which each one has a colour and an interval
GREY, BLUE, ORANGE = "#8a94a3", "#1f5fae", "#d1601f"  # none, the default, the method of a panel


def learning_curves(results: Results, metric: str, envs: Sequence[str] | None = None) -> Figure:
    """Draw the interquartile mean over seeds, a panel for each environment, with labels at the ends of the lines.

    Of more than FEW methods only the default, `none`, `count` and the best one have a colour and an interval.
    """
    envs = [e for e in envs or results.envs if any((metric, e, m) in results.cells for m in results.methods)]
    figure, axes = panels(len(envs))
    for axis, env in zip(axes, envs, strict=True):
        methods = [m for m in results.methods if (metric, env, m) in results.cells]
        grid = _grid(results, metric, env, methods)
        curves = {m: results.curves(metric, env, m, grid) for m in methods}
        last = {m: float(iqm(x.T)[-1]) for m, x in curves.items()}
        shown = _highlighted(results, last)
        labels = []
        for method in methods:
            if method not in shown:
                axis.plot(grid, iqm(curves[method].T), lw=0.7, color=GREY, alpha=0.5, zorder=1)
                continue
            middle, low, high = band(curves[method], draws=2_000)
            axis.plot(grid, middle, lw=1.7, color=shown[method])
            axis.fill_between(grid, low, high, color=shown[method], alpha=0.15, lw=0)
            labels.append((last[method], method, shown[method]))
        _label_ends(axis, labels)
        axis.set(title=env, xlabel="environment steps", ylabel=metric)
        axis.xaxis.set_major_formatter(lambda x, _: short(x))
        axis.grid(alpha=0.3)
    return figure


def small_multiples(results: Results, env: str) -> list[Figure]:
    """Draw each method's curve of the suite's metric with its interval, against `none` and the default."""
    metric = results.metric
    methods = [m for m in results.methods if (metric, env, m) in results.cells]
    grid = _grid(results, metric, env, methods)
    found = {m: band(results.curves(metric, env, m, grid), draws=1_000) for m in methods}
    edges = [np.nanmin([low for _, low, _ in found.values()]), np.nanmax([high for *_, high in found.values()])]
    margin = 0.05 * (edges[1] - edges[0]) or 0.05
    drawn = []
    for method in methods:
        figure, (axis,) = canvas(width=2.6, height=1.8)
        for other, color in (("none", GREY), (results.default, BLUE)):
            if other in found and other != method:
                axis.plot(grid, found[other][0], lw=1.0, color=color)
        middle, low, high = found[method]
        axis.plot(grid, middle, lw=1.7, color=ORANGE)
        axis.fill_between(grid, low, high, color=ORANGE, alpha=0.25, lw=0)
        axis.set_title(method, fontsize=10, color=ORANGE)
        axis.set(ylim=(edges[0] - margin, edges[1] + margin), xlim=(0, grid[-1]), xticks=[0, grid[-1]])
        axis.set_xticklabels(["0", short(grid[-1])])
        axis.tick_params(labelsize=8)
        drawn.append(figure)
    return drawn


def intervals(results: Results) -> Figure:
    """Draw the interquartile mean of the scores over all environments and its interval, a line for each method."""
    figure, (axis,) = panels(1, height=0.8 + 0.22 * len(results.methods))
    found = {m: iqm_interval(results.scores(m, results.envs_of(m))) for m in results.methods}
    order = sorted(found, key=lambda m: -found[m][0])
    for i, method in enumerate(order):
        middle, low, high = found[method]
        color = _colour(results, method)
        axis.plot([low, high], [i, i], color=color, lw=2.5, alpha=0.5, solid_capstyle="butt")
        axis.plot(middle, i, "o", color=color, ms=5)
    _rows(axis, order)
    axis.set(xlabel="score (interquartile mean)")
    return figure


def steps_to_threshold(results: Results, env: str) -> Figure:
    """Draw the median and the range over seeds of the steps to the threshold, the fastest method first.

    An arrow at the right edge stands for seeds that never reach it, with their number.
    """
    steps = {m: results.values("steps_to_threshold", env, m) for m in results.methods}
    steps = {m: x for m, x in steps.items() if len(x)}
    order = sorted(steps, key=lambda m: (np.median(steps[m]), np.isinf(steps[m]).mean(), steps[m].min()))
    figure, (axis,) = panels(1, height=0.8 + 0.22 * len(order))
    edge = float(results.only("budget", env) or max(x[np.isfinite(x)].max(initial=1.0) for x in steps.values())) * 1.02
    for i, method in enumerate(order):
        values, color = steps[method], _colour(results, method)
        never = int(np.isinf(values).sum())
        ends = np.minimum([values.min(), values.max()], edge)
        axis.plot(ends, [i, i], color=color, lw=2.0, alpha=0.5)
        if np.isfinite(np.median(values)):
            axis.plot(np.median(values), i, "o", color=color, ms=5)
        if never:
            axis.plot(edge, i, ">", color=color, ms=5)
            axis.annotate(f"{never} of {len(values)} never", (edge, i), (6, 0), textcoords="offset points", va="center",
                          fontsize=8, color=color)  # fmt: skip
    _rows(axis, order)
    axis.xaxis.set_major_formatter(lambda x, _: short(x))
    axis.set(title=env, xlabel="environment steps to the threshold", xlim=(0, edge * 1.25))
    return figure


def profiles(results: Results) -> Figure:
    """Draw the share of runs, over all environments, that score above a threshold; highlights as in learning curves."""
    figure, (axis,) = panels(1, height=4.2)
    thresholds = np.linspace(0, 1, 51)
    scores = {m: results.scores(m, results.envs_of(m)) for m in results.methods}
    shown = _highlighted(results, {m: float(iqm(np.concatenate(x))) for m, x in scores.items()})
    for method, values in scores.items():
        share, low, high = performance_profile(values, thresholds, draws=2_000)
        if method not in shown:
            axis.plot(thresholds, share, lw=0.7, color=GREY, alpha=0.5, zorder=1)
            continue
        axis.plot(thresholds, share, lw=1.7, color=shown[method], label=method)
        axis.fill_between(thresholds, low, high, color=shown[method], alpha=0.12, lw=0)
    axis.set(xlabel="score", ylabel="share of runs above it", ylim=(-0.02, 1.02), xlim=(0, 1))
    axis.legend(loc="lower left", fontsize=8)  # all curves end at 0, where labels would overlap
    axis.grid(alpha=0.3)
    return figure


def seeds(results: Results, env: str) -> Figure:
    """Draw a point for each run, which shows the spread of a method's seeds."""
    figure, (axis,) = panels(1, height=0.8 + 0.22 * len(results.methods))
    for i, method in enumerate(results.methods):
        scores = results.values("score", env, method)
        axis.plot(scores, np.full(len(scores), i), "o", ms=5, alpha=0.5, color=_colour(results, method))
    _rows(axis, results.methods)
    axis.set(title=env, xlabel="score")
    return figure


def _grid(results: Results, metric: str, env: str, methods: Sequence[str]) -> np.ndarray:
    runs = [rows for m in methods for rows in results.cells[metric, env, m].values()]
    return np.linspace(0, max(row.env_steps for rows in runs for row in rows), GRID)


def _highlighted(results: Results, last: dict[str, float]) -> dict[str, str]:
    """Return the colours of the methods that are highlighted: all of a few, else the references and the best one."""
    if len(last) <= FEW:
        return {method: f"C{i}" for i, method in enumerate(last)}
    chosen = {"none": "#4a5666", "count": "#2f8f5b", results.default: BLUE}
    best = max(last, key=lambda m: last[m])
    return {m: c for m, c in ({best: ORANGE} | chosen).items() if m in last}


def _colour(results: Results, method: str) -> str:
    return {"none": GREY, results.default: BLUE}.get(method, ORANGE)


def _label_ends(axis: Any, labels: list[tuple[float, str, str]], gap: float = 0.055) -> None:
    """Write names at the right edge beside the ends (y, name, colour) of lines, at least `gap` of the height apart."""
    low, high = axis.get_ylim()
    placed = -np.inf
    for y, name, color in sorted(labels):
        placed = max((y - low) / (high - low), placed + gap)
        axis.annotate(name, (1, placed), (4, 0), xycoords="axes fraction", textcoords="offset points", va="center",
                      fontsize=8, color=color, annotation_clip=False)  # fmt: skip
    axis.set_ylim(low, high)


def _rows(axis: Any, names: Sequence[str]) -> None:
    """Label the rows of a plot from the top."""
    axis.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6))
    axis.tick_params(axis="y", labelsize=9)
    axis.grid(alpha=0.3, axis="x")
