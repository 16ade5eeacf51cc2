"""No intrinsic reward: plain PPO with the same training loop."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.curiosity.base import Curiosity
from worldmodel.model.world_model import Outputs
from worldmodel.types import Rollout


class NoCuriosity(Curiosity):
    """Intrinsic reward of 0."""

    max_reward = 1.0  # any value: the predicted reward is 0

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        return torch.zeros_like(roll.logp)

    def predict_reward(self, roll: Rollout, out: Outputs) -> Tensor:
        return torch.zeros_like(roll.logp)
