"""Skill of predictions: 1 - error / error of predicting no change, with its interval."""

from __future__ import annotations

from typing import Any

import numpy as np

from worldmodel.analysis.statistics import ratio_interval


def skill(error: np.ndarray, base: np.ndarray, episode: np.ndarray, seed: int) -> dict[str, Any]:
    """Compute the skill from squared errors `error` (n,) and those of predicting no change, `base` (n,).

    The 95 % interval resamples the episodes (n,). The skill is None without a finite sample.
    """
    count = len(episode)
    if not count or not base.sum() or not np.isfinite(error.sum()):
        return {"skill": None, "ci": None, "samples": count}
    which = np.unique(episode, return_inverse=True)[1]
    model, still = (np.bincount(which, x.astype(np.float64)) for x in (error, base))
    value = 1 - float(model.sum() / still.sum())
    found = ratio_interval(model, still, seed)
    ci = None if found is None else [rounded(1 - found[1]), rounded(1 - found[0])]
    return {"skill": rounded(value), "ci": ci, "samples": count}


def rounded(x: float | None) -> float | None:
    """Round to six decimals for the report; None for nan and infinities, which JSON lacks."""
    return None if x is None or not np.isfinite(x) else round(float(x), 6)
