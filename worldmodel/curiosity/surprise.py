"""Standardised surprise."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.curiosity.curiosity import Curiosity
from worldmodel.types import Rollout
from worldmodel.world_model import Outputs


class Surprise(Curiosity):
    """clip( mean_d (delta_d - mu_d)^2 / sigma_d^2  - 1, low, high ).

    The surprise in excess of what the model itself expected: noise that the model has learnt to expect pays nothing
    on average, so neither a turn under a partial view nor a noisy TV goes on paying.
    """

    def __init__(self, low: float = -1.0, high: float = 10.0):
        super().__init__()
        self.low, self.high = low, high

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        ratio = out.error.square() * torch.exp(-out.pred.logvar)
        return (ratio.flatten(2).mean(-1) - 1.0).clamp(self.low, self.high)
