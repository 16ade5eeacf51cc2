"""Prediction error above a learnt baseline."""

from __future__ import annotations

from math import prod

import gymnasium as gym
import torch
from torch import Tensor, nn

from encoders.encoder import perceptron
from worldmodel.curiosity.base import Curiosity
from worldmodel.model.action_embedding import ActionCode
from worldmodel.model.world_model import Outputs
from worldmodel.running_stats import RunningMeanStd
from worldmodel.types import Rollout


class CuriosityCritic(Curiosity):
    """e_t - c(h_t, y_t, a_t): the world model's own error e_t = mean_d (delta - mu)^2 less what a critic, which
    regresses that error, says the transition costs anyway (Bhaskara and Wang 2026, arXiv 2604.18701; written from its
    abstract).

    A single number is learnt sooner than the world, so the baseline comes to stand for what can't be learnt. A relative
    of `Surprise`, whose baseline is the world model's own variance. The critic begins at 0: plain error. Loss:
    curiosity_critic, (c - e)^2 / 2.
    """

    def __init__(self, dim: int, target_shape: tuple[int, ...], act_space: gym.Space, *, hidden: int = 256):
        super().__init__()
        width = prod(target_shape)
        self.state = RunningMeanStd((width,))
        self.code = ActionCode(act_space)
        self.critic = perceptron([dim + width + self.code.width, hidden, hidden, 1])
        nn.init.zeros_(self.critic[-1].weight)

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        self.state.update(out.y[:, :-1].flatten(2), roll.tail(roll.valid))
        return self._error(out) - self._baseline(roll, out)

    def losses(self, roll: Rollout, out: Outputs) -> dict[str, Tensor]:
        return {"curiosity_critic": 0.5 * (self._baseline(roll, out) - self._error(out)).square()}

    def _error(self, out: Outputs) -> Tensor:
        return out.error.detach().square().flatten(2).mean(-1)

    def _baseline(self, roll: Rollout, out: Outputs) -> Tensor:
        y = self.state(out.y[:, :-1].detach().flatten(2))
        return self.critic(torch.cat([out.h.detach(), y, self.code(roll.tail(roll.act))], -1))[..., 0]
