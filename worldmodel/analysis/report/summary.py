"""Mean return, success, length and coverage of a behaviour's episodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from worldmodel.analysis.report.context import EpisodeSet
from worldmodel.analysis.report.skill import rounded
from worldmodel.analysis.statistics import ratio_interval
from worldmodel.errors import ConfigError


def summary(episode_set: EpisodeSet, threshold: float | None, seed: int) -> dict[str, Any]:
    """Return means over a behaviour's episodes with intervals. Raises ConfigError where no episode counts."""
    stats = episode_set.stats
    fair = stats.solved == 0
    if not fair.any():
        raise ConfigError(f"episodes={len(fair)}: all of them begin solved, none counts")
    won = None if threshold is None else (stats.ret[fair] > threshold).astype(float)

    def interval(x: np.ndarray) -> list[float] | None:
        found = ratio_interval(x, np.ones_like(x), seed)
        return found and [rounded(bound) for bound in found]

    return {
        "return_mean": rounded(stats.ret[fair].mean()),
        "return_ci": interval(stats.ret[fair]),
        "success": None if won is None else rounded(won.mean()),
        "success_ci": None if won is None else interval(won),
        "length": rounded(stats.length[fair].mean()),
        "length_ci": interval(stats.length[fair]),
        "coverage": rounded(coverage(episode_set)),
        "episodes": int(fair.sum()),
        "refused": int((~fair).sum()),
        "cut": stats.cut,
    }


def coverage(episode_set: EpisodeSet) -> float | None:
    """Mean number of different places in an episode; None where the environment does not report places."""
    steps = episode_set.steps
    if not steps.place.shape[1]:
        return None
    visits = np.unique(np.column_stack([steps.episode, steps.place]), axis=0)
    return len(visits) / len(np.unique(steps.episode))
