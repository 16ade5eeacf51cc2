"""Standardised surprise."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.curiosity.base import Curiosity
from worldmodel.model.world_model import Outputs
from worldmodel.types import Rollout


class Surprise(Curiosity):
    """clip( mean_d (delta_d - mu_d)^2 / sigma_d^2  - 1 - margin, low, high ).

    The surprise in excess of what the model itself expected: noise that the model has learnt to expect pays nothing,
    so neither a turn under a partial view nor a noisy TV goes on paying.

    The excess is zero on average for a calibrated model, but only unclipped: an event that happens once in a hundred
    tries is worth a hundred times its expected square, so a bound of 10 makes trying it a loss, and the agent stops
    opening doors. A margin above zero with `low` 0 removes both the loss and the noise of ordinary steps: what is
    as uncertain as expected pays exactly nothing, and what is far beyond it pays.
    """

    def __init__(self, margin: float = 2.0, low: float = 0.0, high: float = 20.0):
        super().__init__()
        if low >= high:
            raise ValueError(f"curiosity.low={low}: must be below curiosity.high={high}")
        self.margin, self.low, self.high = margin, low, high

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        ratio = out.error.square() * torch.exp(-out.pred.logvar)
        return (ratio.flatten(2).mean(-1) - 1.0 - self.margin).clamp(self.low, self.high)
