"""Scaling of the memory: bits, skill and seconds of several widths and depths on the same data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from worldmodel.analysis.probes.scaling import draw_law, fit_power_law
from worldmodel.analysis.report.canvas import panels
from worldmodel.analysis.report.cells import format_mean_range
from worldmodel.analysis.report.section import Table
from worldmodel.errors import ConfigError
from worldmodel.experiments.benchmark.suite import Cell
from worldmodel.experiments.study_runner import StudyRunner, cpu_seconds, report_of
from worldmodel.training.loading import load_agent


class ScalingResult(NamedTuple):
    """A trained memory."""

    parameters: int  # of the memory alone, without embeddings and heads
    bits: float  # cross-entropy with the exact distribution of the next token
    optimum: float  # bits, of an ideal observer on the same tokens
    skill: float  # one step ahead, of the latent delta
    belief: float  # held-out R² of an affine map from h to the exact belief
    seconds: float  # of CPU time for training


def scaling(
    runner: StudyRunner,
    *,
    widths: Sequence[int],
    depths: Sequence[int],
    common: list[str],
    seeds: list[int],
    episodes: int,
) -> None:
    """Train a memory of each width and depth with equal steps, and compare its predictions with the optimum.

    In an environment whose tokens do not depend on actions and whose optimal prediction is known (Mess3), every model
    of a seed reads the same tokens, and the floor of the fitted law E + A N^-alpha is known. The hidden layer of the
    heads is twice as wide as the memory.

    Raises:
        ConfigError: where the environment has no known answer, or for fewer than three sizes.
    """
    sizes = list(product(widths, depths))
    if len(set(sizes)) < 3:
        raise ConfigError(f"study.widths={widths} study.depths={depths}: a law needs three models or more")
    overrides = {
        f"width{width}_depth{depth}": [f"memory.dim={width}", f"memory.depth={depth}", f"model.hidden={2 * width}"]
        for width, depth in sizes
    }
    asked = ["parts=[prediction,known_answer]", f"episodes={episodes}", "horizons=[1]"]
    cells = runner.cells(overrides, common, seeds, asked)
    runner.train(cells)
    found = {name: [result_of(c) for c in cells if c.method == name] for name in overrides}
    size = np.array([runs[0].parameters for runs in found.values()])
    bits = np.array([[run.bits for run in runs] for runs in found.values()])
    law, optimum = (
        fit_power_law(size, bits.mean(1)),
        float(np.mean([x.optimum for runs in found.values() for x in runs])),
    )
    rows = [
        [str(width), str(depth), f"{runs[0].parameters:,}", *(_format(runs, key) for key in COLUMNS)]
        for (width, depth), runs in zip(sizes, found.values(), strict=True)
    ]
    figure, axes = panels(3)
    axes[0].axhline(optimum, color="C2", lw=0.8, label=f"optimum, {optimum:.4f}")
    draw_law(axes[0], size, bits.mean(1), law)
    axes[0].set(xlabel="parameters of the memory", ylabel="bits a token")
    for axis, key, label in ((axes[1], "skill", "one-step skill"), (axes[2], "seconds", "CPU seconds of training")):
        for depth in depths:
            runs = [r for (_, d), r in zip(sizes, found.values(), strict=True) if d == depth]
            axis.plot([r[0].parameters for r in runs], [_mean(r, key) for r in runs], "o-", label=f"depth {depth}")
        axis.set(xscale="log", xlabel="parameters of the memory", ylabel=label)
        axis.grid(alpha=0.3)
    axes[1].legend(fontsize=8)
    runner.write(
        Table(
            "bits, skill and seconds by the memory's size", ["width", "depth", "parameters", *COLUMNS.values()], rows
        ),
        f"{' '.join(common)}; mean [lowest, highest] over seeds {', '.join(map(str, seeds))}, {episodes} unseen "
        "episodes; within a seed all models read the same tokens. Bits are of the cross-entropy with the exact "
        f"distribution of the next token; the optimum is {optimum:.4f} bits a token. Law of the mean bits: "
        f"{law.floor:.4f} + {law.scale:.2g} (N / {law.reference:,.0f})^-{law.exponent:.2f}, residual {law.rmse:.1g}. "
        "Seconds are CPU seconds of the run on one core.",
        figure,
    )


COLUMNS = {
    "excess": "bits above the optimum",
    "skill": "one-step skill",
    "belief": "belief R²",
    "seconds": "CPU seconds",
}


def result_of(cell: Cell) -> ScalingResult:
    """Return the result of a trained cell from its report. Raises ConfigError."""
    memory = load_agent(cell.folder / "checkpoints" / "last.ckpt")[0].model.memory
    report = report_of(cell)
    known: dict[str, Any] | None = report.get("known_answer")
    if known is None:
        raise ConfigError("study.common: its environment has no known answer, allowed is e.g. experiment=mess3")
    return ScalingResult(
        parameters=sum(p.numel() for p in memory.parameters()),
        bits=known["cross_entropy_nats"] / math.log(2),
        optimum=known["optimal_nats"] / math.log(2),
        skill=report["delta_skill"]["1"],
        belief=known["belief_r2"],
        seconds=cpu_seconds(cell),
    )


def _values(runs: Sequence[ScalingResult], key: str) -> list[float]:
    return [run.bits - run.optimum if key == "excess" else getattr(run, key) for run in runs]


def _mean(runs: Sequence[ScalingResult], key: str) -> float:
    return float(np.mean(_values(runs, key)))


def _format(runs: Sequence[ScalingResult], key: str) -> str:
    values, digits = _values(runs, key), {"excess": 5, "seconds": 0}.get(key, 3)
    return format_mean_range(values, digits) if len(values) > 1 else f"{values[0]:.{digits}f}"
