"""Do the reward and the end head know what comes?"""

from __future__ import annotations

from typing import Any

import numpy as np

from worldmodel.analysis.report.skill import rounded
from worldmodel.analysis.report.transitions import Transitions


def auc(score: np.ndarray, event: np.ndarray) -> float | None:
    """Area under the ROC curve, (n,) each: the probability that an event scores higher than a non-event, ties counting
    half (Mann & Whitney 1947). None unless both occur."""
    positives, negatives = int(event.sum()), int((~event).sum())
    if not positives or not negatives:
        return None
    _, which, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[which]  # of a tie: its mean
    return float((rank[event].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def end_head(steps: Transitions) -> dict[str, Any]:
    """Brier score (mean squared error of a probability) of the predicted termination, beside that of the base rate."""
    rate = steps.end.mean()
    return {
        "rate": rounded(rate),
        "auc": rounded(auc(steps.end_hat, steps.end)),
        "brier": rounded(np.square(steps.end_hat - steps.end).mean()),
        "brier_base": rounded(rate * (1 - rate)),
    }


def reward_head(steps: Transitions) -> dict[str, Any]:
    """Predicted reward against what came, in symlog units: r2 is 1 - squared error / variance; the AUC is that of the
    predicted size in telling which transitions pay anything."""
    truth = np.sign(steps.rew_ext) * np.log1p(np.abs(steps.rew_ext))
    error, variance = np.square(steps.rew_hat - truth).mean(), truth.var()
    return {
        "rate": rounded((steps.rew_ext != 0).mean()),
        "auc": rounded(auc(np.abs(steps.rew_hat), steps.rew_ext != 0)),
        "mse": rounded(error),
        "r2": rounded(1 - error / variance) if variance else None,
    }
