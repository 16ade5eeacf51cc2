"""Does a world model that has only seen random behaviour know the policy's world, and the other way round?"""

from __future__ import annotations

import numpy as np

from worldmodel.experiments.benchmark.plots import panels
from worldmodel.experiments.benchmark.tables import Table
from worldmodel.experiments.studies.behaviour import skills, train_on
from worldmodel.experiments.studies.runner import Lab


def random_against_policy(
    lab: Lab, *, behaviours: dict[str, list[str]], common: list[str], seeds: list[int], episodes: int
) -> None:
    """Train a world model on each behaviour's data, for equally many steps, and test each on each one's episodes."""
    found = skills(train_on(lab, behaviours, common, seeds), episodes)
    names = list(behaviours)
    rows = [[a, *(words(found[i, j]) for j in range(len(names)))] for i, a in enumerate(names)]
    table = Table("one-step skill of a model trained on A, tested on B", ["A \\ B", *names], rows)
    lab.write(
        table,
        f"Mean [lowest, highest] over seeds {', '.join(map(str, seeds))}; {episodes} episodes of each. Skill is 1 - "
        "squared error / squared error of predicting no change, in units of A's delta scale: 0 is no better than that.",
    )
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
    lab.save(figure)


def words(skill: np.ndarray) -> str:
    """(seeds,) -> mean [lowest, highest]."""
    return f"{skill.mean():.3f} [{skill.min():.3f}, {skill.max():.3f}]"
