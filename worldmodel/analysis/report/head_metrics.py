"""Accuracy of the reward head and of the end head."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from worldmodel.analysis.report.skill import rounded
from worldmodel.analysis.report.transitions import Transitions


def auc(score: np.ndarray, event: np.ndarray) -> float | None:
    """Area under the ROC curve of scores (n,) for events (n,) bool. None unless both outcomes occur."""
    return float(roc_auc_score(event, score)) if event.any() and not event.all() else None


def end_head(steps: Transitions) -> dict[str, Any]:
    """Return AUC and Brier score (mean squared error) of the predicted termination, and the base rate's Brier score."""
    rate = steps.end.mean()
    return {
        "rate": rounded(rate),
        "auc": rounded(auc(steps.end_hat, steps.end)),
        "brier": rounded(np.square(steps.end_hat - steps.end).mean()),
        "brier_base": rounded(rate * (1 - rate)),
    }


def reward_head(steps: Transitions) -> dict[str, Any]:
    """Return the errors of the predicted reward.

    `r2` is 1 - squared error / variance. `auc` is that of the predicted absolute value for a non-zero reward.
    """
    error, variance = np.square(steps.rew_hat - steps.rew_ext).mean(), steps.rew_ext.var()
    return {
        "rate": rounded((steps.rew_ext != 0).mean()),
        "auc": rounded(auc(np.abs(steps.rew_hat), steps.rew_ext != 0)),
        "mse": rounded(error),
        "r2": rounded(1 - error / variance) if variance else None,
    }
