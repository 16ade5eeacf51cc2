"""World models trained on random behaviour and on the policy's, each tested on both."""

from __future__ import annotations

import numpy as np

from worldmodel.analysis.report.canvas import panels
from worldmodel.analysis.report.cells import format_mean_range
from worldmodel.analysis.report.section import Table
from worldmodel.experiments.behaviour import skills, train_on
from worldmodel.experiments.study_runner import StudyRunner


def random_against_policy(
    runner: StudyRunner, *, behaviours: dict[str, list[str]], common: list[str], seeds: list[int], episodes: int
) -> None:
    """Train a world model on each behaviour's data, with equal steps, and test each on all behaviours' episodes."""
    found = skills(train_on(runner, behaviours, common, seeds), episodes)
    names = list(behaviours)
    rows = [[a, *(format_mean_range(found[i, j]) for j in range(len(names)))] for i, a in enumerate(names)]
    table = Table("one-step skill of a model trained on A, tested on B", ["A \\ B", *names], rows)
    figure, (axis,) = panels(1)
    middle = found.mean(-1)
    image = axis.imshow(middle, cmap="viridis")
    for i, j in np.ndindex(middle.shape):
        axis.text(
            j, i, f"{middle[i, j]:.2f}", ha="center", va="center", color="white", bbox={"color": "black", "alpha": 0.4}
        )
    ticks = range(len(names))
    axis.set(
        xticks=ticks, yticks=ticks, xticklabels=names, yticklabels=names, xlabel="tested on B", ylabel="trained on A"
    )
    figure.colorbar(image, label="one-step skill")
    runner.write(
        table,
        f"Mean [lowest, highest] over seeds {', '.join(map(str, seeds))}; {episodes} episodes of each. Skill is 1 - "
        "squared error / squared error of predicting no change, in units of A's delta scale: 0 is no better than that.",
        figure,
    )
