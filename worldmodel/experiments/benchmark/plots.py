"""Figures of a benchmark from results.csv."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from worldmodel.analysis.report.canvas import panels
from worldmodel.analysis.statistics import band, iqm_interval, performance_profile
from worldmodel.experiments.benchmark.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRID = 100  # points of a learning curve
STYLES = ("-", "--", ":")


def learning_curves(results: Results, metric: str) -> Figure:
    """Draw the interquartile mean over seeds and its bootstrap interval, a panel for each environment."""
    envs = [e for e in results.envs if any((metric, e, m) in results.cells for m in results.methods)]
    figure, axes = panels(len(envs))
    for axis, env in zip(axes, envs, strict=True):
        keys = [key for m in results.methods if (key := (metric, env, m)) in results.cells]
        end = max(row.env_steps for key in keys for rows in results.cells[key].values() for row in rows)
        grid = np.linspace(0, end, GRID)
        for method, style in _styles(results):
            if (metric, env, method) not in results.cells:
                continue
            middle, low, high = band(results.curves(metric, env, method, grid), draws=2_000)
            (line,) = axis.plot(grid, middle, lw=1.5, label=method, **style)
            axis.fill_between(grid, low, high, color=line.get_color(), alpha=0.15, lw=0)
        axis.set(title=env, xlabel="environment steps", ylabel=metric)
        axis.grid(alpha=0.3)
    _legend(figure, axes)
    return figure


def intervals(results: Results) -> Figure:
    """Draw the interquartile mean of the scores over all environments and its interval, a line for each method."""
    figure, (axis,) = panels(1, height=0.6 + 0.25 * len(results.methods))
    for i, (method, style) in enumerate(_styles(results)):
        middle, low, high = iqm_interval(results.scores(method, results.envs_of(method)))
        axis.barh(i, high - low, left=low, height=0.6, color=style["color"], alpha=0.5)
        axis.plot([middle, middle], [i - 0.3, i + 0.3], color="black", lw=1.5)
    axis.set(yticks=range(len(results.methods)), yticklabels=results.methods, xlabel="score (interquartile mean)")
    axis.invert_yaxis()
    axis.grid(alpha=0.3, axis="x")
    return figure


def profiles(results: Results) -> Figure:
    """Draw the share of runs, over all environments, that score above a threshold."""
    figure, axes = panels(1)
    thresholds = np.linspace(0, 1, 51)
    for method, style in _styles(results):
        scores = results.scores(method, results.envs_of(method))
        share, low, high = performance_profile(scores, thresholds, draws=2_000)
        (line,) = axes[0].plot(thresholds, share, lw=1.5, label=method, **style)
        axes[0].fill_between(thresholds, low, high, color=line.get_color(), alpha=0.1, lw=0)
    axes[0].set(xlabel="score", ylabel="share of runs above it", ylim=(-0.02, 1.02))
    axes[0].grid(alpha=0.3)
    _legend(figure, axes)
    return figure


def seeds(results: Results) -> Figure:
    """Draw a point for each run, which shows the spread of a method's seeds."""
    figure, axes = panels(len(results.envs), height=0.8 + 0.25 * len(results.methods))
    for axis, env in zip(axes, results.envs, strict=True):
        for i, (method, style) in enumerate(_styles(results)):
            scores = results.values("score", env, method)
            axis.plot(scores, np.full(len(scores), i), "o", ms=5, alpha=0.6, color=style["color"])
        axis.set(title=env, yticks=range(len(results.methods)), yticklabels=results.methods, xlabel="score")
        axis.invert_yaxis()
        axis.grid(alpha=0.3)
    return figure


def _styles(results: Results) -> list[tuple[str, dict[str, str]]]:
    return [(m, {"color": f"C{i % 10}", "ls": STYLES[i // 10 % len(STYLES)]}) for i, m in enumerate(results.methods)]


def _legend(figure: Figure, axes: np.ndarray) -> None:
    """Draw one legend for all panels, of every method in any of them."""
    found = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    if found:
        figure.legend(found.values(), found.keys(), loc="outside right upper", fontsize=8)
