"""Statistics over seeds and environments (Agarwal et al. 2021, Deep RL at the edge of the statistical precipice).

`scores` is a list with one array (seeds,) for each environment; environments may have different numbers of seeds. A
score is normalised: 0 and 1 are the worst and the best value of a suite's range. Intervals are percentile bootstraps
(Efron 1979) stratified over environments: the seeds of each environment are resampled with replacement, so that every
environment keeps its share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import trim_mean

Scores = Sequence[np.ndarray]
LEVEL, DRAWS = 0.95, 10_000


def iqm(scores: np.ndarray) -> np.ndarray:
    """Interquartile mean over the last axis, without floor(n / 4) scores at either end."""
    return trim_mean(scores, 0.25, axis=-1)


def optimality_gap(scores: np.ndarray, goal: float = 1.0) -> np.ndarray:
    """Mean shortfall of the runs from the goal, over the last axis; exceeding the goal does not count."""
    return goal - np.minimum(scores, goal).mean(-1)


def interval(
    statistic: Callable[[np.ndarray], np.ndarray],
    scores: Scores,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[float, float, float]:
    """A statistic over the last axis of all runs together, and its interval."""
    spread = statistic(np.concatenate(_resample(scores, draws, np.random.default_rng(seed)), -1))
    return float(statistic(np.concatenate(scores))), *_percentiles(spread, level)


def iqm_interval(
    scores: np.ndarray | Scores, level: float = LEVEL, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float, float]:
    """Interquartile mean with its interval, of one environment's scores (seeds,) or of several environments'."""
    return interval(iqm, [scores] if isinstance(scores, np.ndarray) else scores, level, draws, seed)


def improvement(x: Scores, y: Scores, level: float = LEVEL, draws: int = DRAWS, seed: int = 0) -> tuple[float, ...]:
    """Probability that a run of x beats one of y in the same environment, with its interval.

    It is averaged over environments. A tie counts half (Mann and Whitney 1947). Both list the same environments in the
    same order.
    """
    rng = np.random.default_rng(seed)
    pairs = zip(_resample(x, draws, rng), _resample(y, draws, rng), strict=True)
    spread = np.mean([_beats(a, b) for a, b in pairs], 0)
    found = np.mean([_beats(a, b) for a, b in zip(x, y, strict=True)])
    return float(found), *_percentiles(spread, level)


def performance_profile(
    scores: Scores, thresholds: np.ndarray, level: float = LEVEL, draws: int = DRAWS, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share of runs that score above each threshold (thresholds,), with pointwise intervals."""
    drawn = np.concatenate(_resample(scores, draws, np.random.default_rng(seed)), -1)
    runs = np.concatenate(scores)
    spread = np.stack([(drawn > t).mean(-1) for t in thresholds], -1)
    low, high = np.quantile(spread, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return (runs[:, None] > thresholds).mean(0), low, high


def band(
    curves: np.ndarray, level: float = LEVEL, draws: int = DRAWS, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Interquartile mean over seeds at each point of curves (seeds, points), with pointwise intervals over seeds."""
    picks = np.random.default_rng(seed).integers(len(curves), size=(draws, len(curves)))
    spread = iqm(np.moveaxis(curves[picks], 1, -1))  # (draws, points)
    low, high = np.quantile(spread, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return iqm(curves.T), low, high


def _resample(scores: Scores, draws: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Bootstrap replicates (draws, seeds) of each environment."""
    return [x[rng.integers(len(x), size=(draws, len(x)))] for x in scores]


def _beats(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Share (...) of pairs of x (..., n) and y (..., m) in which x is higher; a tie counts half."""
    x, y = x[..., :, None], y[..., None, :]
    return ((x > y) + 0.5 * (x == y)).mean((-2, -1))


def _percentiles(spread: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(spread, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


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
