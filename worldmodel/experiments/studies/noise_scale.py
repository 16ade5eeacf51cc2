"""Critical batch size over training, from the gradient noise scale."""

from __future__ import annotations

import numpy as np

from worldmodel.analysis.report.canvas import panels
from worldmodel.analysis.report.section import Table
from worldmodel.errors import ConfigError
from worldmodel.experiments.benchmark.suite import Cell
from worldmodel.experiments.study_runner import StudyRunner
from worldmodel.training.callbacks.noise_scale import MODULES
from worldmodel.training.compose import compose_config
from worldmodel.training.learning_curve import read_metrics

UNITS = {"model": "sequences", "policy": "steps"}


def noise_scale(runner: StudyRunner, *, common: list[str], seeds: list[int], shares: list[float]) -> None:
    """Estimate the critical batch size of the world model and of the policy over training.

    The callback NoiseScale estimates it (McCandlish et al. 2018, arXiv 1812.06162). The table has a line for each part,
    with medians over seeds around the `shares` of training.

    Raises:
        ConfigError: for shares outside (0, 1], or runs without the callback.
    """
    if not shares or any(not 0 < share <= 1 for share in shares):
        raise ConfigError(f"study.shares={shares}: allowed are numbers above 0 and up to 1")
    cells = runner.cells({"run": []}, common, seeds)
    runner.train(cells)
    runs = [read_metrics(cell.folder / "metrics.csv") for cell in cells]
    if missing := {f"noise_scale_{part}" for part in MODULES} - runs[0].keys():
        raise ConfigError(
            f"study.common: its runs have no {', '.join(sorted(missing))}, allowed is noise_scale=default"
        )
    sizes = batches(cells[0])
    figure, axes = panels(1 + len(MODULES))
    rows = []
    for axis, part in zip(axes, MODULES, strict=False):
        at = [[_around(run, f"noise_scale_{part}", share) for share in shares] for run in runs]
        rows.append(
            [
                f"{part.replace('model', 'world model')}, {UNITS[part]}",
                str(sizes[part]),
                *map(_format, _median(np.array(at))),
            ]
        )
        for run, cell in zip(runs, cells, strict=True):
            axis.plot(run["env_steps"], run[f"noise_scale_{part}"], label=f"seed {cell.seed}")
        axis.axhline(sizes[part], color="black", ls=":", label="batch of the run")
        axis.set(title=rows[-1][0], xlabel="environment steps", ylabel=f"critical batch, {UNITS[part]}", yscale="log")
    returns = np.array([[_around(run, "return_ext", share) for share in shares] for run in runs])
    rows.append(["return", "", *map(_format, _median(returns))])
    for run in runs:
        axes[-1].plot(run["env_steps"], run["return_ext"])
    axes[-1].set(title="return", xlabel="environment steps")
    for axis in axes:
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    header = ["", "batch of the run", *(f"at {share:.0%}" for share in shares)]
    runner.write(
        Table("critical batch size over training", header, rows),
        f"{' '.join(common)}; medians over seeds {', '.join(map(str, seeds))} of the updates around each share of "
        "training (a tenth of it). The critical batch is the simple noise scale tr(Sigma) / |G|^2 of the part's "
        "gradient; a sample is a sequence for the world model and a step for the policy. "
        "'-': the gradient is not distinguishable from noise.",
        figure,
    )


def batches(cell: Cell) -> dict[str, int]:
    """Samples in a minibatch of each part: sequences for the world model, steps for the policy."""
    cfg = compose_config(cell.overrides, purpose=cell.method)
    data, envs = cfg.data, cfg.env.num_envs
    fresh = data.model_batch if data.model_batch is not None else envs * data.model_every // data.minibatches
    return {"model": fresh + data.replay_batch, "policy": envs * data.rollout_length // data.minibatches}


def _around(run: dict[str, np.ndarray], key: str, share: float) -> float:
    """Median over the tenth of the run that ends at `share` of it; nan without a number."""
    end = share * run["env_steps"][-1]
    near = run[key][(run["env_steps"] > end - 0.1 * run["env_steps"][-1]) & (run["env_steps"] <= end)]
    near = near[np.isfinite(near)]
    return float(np.median(near)) if len(near) else np.nan


def _median(values: np.ndarray) -> list[float]:
    """Median of values (seeds, shares) over the seeds with a number."""
    found = [column[np.isfinite(column)] for column in values.T]
    return [float(np.median(x)) if len(x) else np.nan for x in found]


def _format(value: float) -> str:
    return f"{value:.3g}" if np.isfinite(value) else "-"
