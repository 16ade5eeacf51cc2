"""Calibration of the predicted variance."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldmodel.analysis.report.skill import rounded
from worldmodel.model.heads.dynamics import LOGVAR_MAX, LOGVAR_MIN

LEVELS = torch.arange(1, 20, dtype=torch.float64) / 20  # of central intervals: 5 %, 10 %, … 95 %
BINS = 20  # of the predicted log-variance


class Calibration:
    """Errors in relation to the predicted standard deviation, counted over transitions and dimensions.

    - `coverage` at a level p: the share of errors inside the central interval of probability p of the Gaussian.
    - `ece`, the expected calibration error: the mean of |coverage - p| over the levels (Kuleshov et al. 2018, section
      3.5, with the absolute difference).
    - `ence`: |RMV - RMSE| / RMV over bins of the predicted variance (Levi et al. 2019), weighted by their counts.
    - `z_square`: the mean squared standardised error, which is 1 for the true variance.
    """

    def __init__(self):
        self.inside = torch.zeros(len(LEVELS) + 1, dtype=torch.float64)
        self.count = torch.zeros(BINS, dtype=torch.float64)
        self.var = torch.zeros(BINS, dtype=torch.float64)
        self.square = torch.zeros(BINS, dtype=torch.float64)
        self.z_square = 0.0

    def add(self, error: Tensor, logvar: Tensor) -> None:
        """Count errors and predicted log-variances (n, *latent), both in the same units."""
        square, logvar = error.flatten().double().square(), logvar.flatten().double()
        z_square = square * torch.exp(-logvar)
        edges = (2**0.5 * torch.erfinv(LEVELS.to(z_square.device))).square()
        self.inside += torch.bincount(torch.bucketize(z_square, edges), minlength=len(edges) + 1).cpu()
        self.z_square += float(z_square.sum())
        which = ((logvar - LOGVAR_MIN) / (LOGVAR_MAX - LOGVAR_MIN) * BINS).long().clamp(0, BINS - 1)
        for total, weight in ((self.count, None), (self.var, logvar.exp()), (self.square, square)):
            total += torch.bincount(which, weight, minlength=BINS).cpu()

    def to_dict(self) -> dict[str, Any]:
        """Return the entry in report.json; its values are None where nothing was added."""
        samples = float(self.inside.sum())
        if not samples:
            return {"samples": 0, "ece": None, "ence": None, "z_square": None, "coverage": None, "bins": None}
        coverage = (self.inside[:-1].cumsum(0) / samples).numpy()
        filled = self.count > 0
        share = (self.count / samples)[filled].numpy()
        rmv, rmse = ((x[filled] / self.count[filled]).sqrt().numpy() for x in (self.var, self.square))
        return {
            "samples": int(samples),
            "ece": rounded(np.abs(coverage - LEVELS.numpy()).mean()),
            "ence": rounded(float((share * np.abs(rmv - rmse) / rmv).sum())),
            "z_square": rounded(self.z_square / samples),
            "coverage": {f"{p:.2f}": rounded(c) for p, c in zip(LEVELS.tolist(), coverage, strict=True)},
            "bins": [
                {"share": rounded(s), "predicted_std": rounded(v), "rms_error": rounded(e)}
                for s, v, e in zip(share, rmv, rmse, strict=True)
            ],
        }
