"""Statistics over seeds."""

from __future__ import annotations

import numpy as np


def iqm(scores: np.ndarray) -> np.ndarray:
    """Interquartile mean over the last axis: a quarter of the scores is cut off at either end (Agarwal et al. 2021).

    As scipy's `trim_mean(scores, .25)`: floor(n / 4) scores go at each end.
    """
    cut = scores.shape[-1] // 4
    return np.sort(scores, -1)[..., cut : scores.shape[-1] - cut].mean(-1)


def iqm_interval(
    scores: np.ndarray, level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """Interquartile mean of scores (seeds,) with its percentile bootstrap interval over seeds."""
    picks = np.random.default_rng(seed).integers(len(scores), size=(draws, len(scores)))
    low, high = np.quantile(iqm(scores[picks]), [(1 - level) / 2, (1 + level) / 2])
    return float(iqm(scores)), float(low), float(high)


def ratio_interval(part: np.ndarray, whole: np.ndarray, seed: int, resamples: int = 2000) -> tuple[float, float] | None:
    """95 % percentile bootstrap (Efron 1979) of sum(part) / sum(whole) over episodes: both (episodes,).

    None where no resample has a finite ratio.
    """
    picks = np.random.default_rng(seed).integers(len(part), size=(resamples, len(part)))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = part[picks].sum(1) / whole[picks].sum(1)
    ratios = ratios[np.isfinite(ratios)]
    if not len(ratios):
        return None
    low, high = np.percentile(ratios, (2.5, 97.5))
    return float(low), float(high)
