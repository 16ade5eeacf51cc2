"""Learning speed of the predictor without actions, in comparison with acting."""

from __future__ import annotations

import numpy as np

from worldmodel.analysis.report.canvas import panels
from worldmodel.analysis.report.cells import format_mean_range
from worldmodel.analysis.report.section import Table
from worldmodel.analysis.statistics import band
from worldmodel.experiments.behaviour import skills, train_on
from worldmodel.experiments.study_runner import StudyRunner
from worldmodel.training.learning_curve import read_metrics


def null_action(
    runner: StudyRunner,
    *,
    behaviours: dict[str, list[str]],
    common: list[str],
    seeds: list[int],
    episodes: int,
    threshold: float,
) -> None:
    """Train a predictor on each behaviour's data; compare skills on fresh rollouts and on the other's episodes.

    The skill on a fresh rollout is measured before the model learns from it.

    Args:
        runner: trains the runs and writes the results.
        behaviours: overrides by name.
        common: overrides of all runs.
        seeds: of each behaviour.
        episodes: of each test.
        threshold: skill for the column of steps.
    """
    trained = train_on(runner, behaviours, common, seeds)
    found, names = skills(trained, episodes), list(behaviours)
    figure, (axis,) = panels(1)
    rows = []
    for i, (name, cells) in enumerate(trained.items()):
        runs = [read_metrics(c.folder / "metrics.csv") for c in cells]
        grid = runs[0]["env_steps"]
        curves = np.array([np.interp(grid, r["env_steps"], r["delta_skill"]) for r in runs])
        middle, low, high = band(curves, draws=2_000)
        (line,) = axis.plot(grid, middle, label=name)
        axis.fill_between(grid, low, high, color=line.get_color(), alpha=0.2, lw=0)
        first = [grid[np.argmax(c >= threshold)] if (c >= threshold).any() else np.inf for c in curves]
        steps = f"{np.median(first):,.0f}" if np.isfinite(np.median(first)) else "never"
        rows.append(
            [
                name,
                steps,
                format_mean_range(curves[:, -1]),
                *(format_mean_range(found[i, j]) for j in range(len(names))),
            ]
        )
    axis.set(xlabel="environment steps", ylabel="one-step skill on fresh rollouts", ylim=(-0.2, 1.02))
    axis.grid(alpha=0.3)
    axis.legend()
    header = ["trained on", f"steps to skill {threshold:g}", "skill at the end, own data", *(f"on {b}" for b in names)]
    runner.write(
        Table("predictors trained with and without actions", header, rows),
        f"Steps: median over seeds {', '.join(map(str, seeds))}; skills: mean [lowest, highest] over them. On other "
        f"behaviour: {episodes} episodes. Each skill is relative to predicting no change in the same data.",
        figure,
    )
