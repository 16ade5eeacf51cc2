"""No curiosity: plain PPO in the same harness."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.curiosity.base import Curiosity
from worldmodel.model.world_model import Outputs
from worldmodel.types import Rollout


class NoCuriosity(Curiosity):
    """Pays 0."""

    most = 1.0  # any: nothing is ever foreseen

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        return torch.zeros_like(roll.logp)

    def foresee(self, roll: Rollout, out: Outputs) -> Tensor:
        return torch.zeros_like(roll.logp)
