"""Standardised surprise."""

from __future__ import annotations

from torch import Tensor

from worldmodel.curiosity.base import AgentSpec, Curiosity
from worldmodel.model.world_model import Outputs
from worldmodel.types import Rollout


class Surprise(Curiosity):
    """Prediction error in excess of the predicted variance.

    clip( mean_d (delta_d - mu_d)^2 / sigma_d^2  - 1 - margin, low, high )

    Noise whose variance the model has learned has no reward. So neither turns under a partial view nor a noisy TV keep
    a positive reward.

    For a calibrated model the excess is zero on average, but only without clipping. An event that happens once in a
    hundred tries has a hundred times its expected square, so with a bound of 10 the average reward of trying is
    negative, and the agent stops opening doors. A margin above zero with `low` 0 removes both this loss and the noise
    of ordinary steps: a transition as uncertain as predicted has reward exactly 0, and one with a far larger error has
    a positive reward.

    Raises ValueError if `low` is not below `high`.
    """

    def __init__(self, spec: AgentSpec, *, margin: float = 2.0, low: float = 0.0, high: float = 20.0):
        super().__init__(spec)
        if low >= high:
            raise ValueError(f"curiosity.low={low}: must be below curiosity.high={high}")
        self.margin, self.low, self.high = margin, low, high

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        return (out.excess - self.margin).clamp(self.low, self.high)
