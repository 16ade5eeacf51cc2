"""Prediction error above a learned baseline."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

from encoders.encoder import perceptron
from worldmodel.curiosity.base import AgentSpec, Curiosity
from worldmodel.model.action_embedding import ActionCode
from worldmodel.model.world_model import Outputs
from worldmodel.running_stats import RunningMeanStd
from worldmodel.types import Rollout, Sequences


class CuriosityCritic(Curiosity):
    """Error of the world model minus a learned baseline: e_t - c(h_t, y_t, a_t).

    e_t = mean_d (delta - mu)^2 is the error of the world model, and the critic c regresses it (Bhaskara and Wang 2026,
    arXiv 2604.18701; implemented from the abstract). A scalar is learned sooner than the world, so the baseline
    converges to the error that cannot be reduced. In `Surprise` the baseline is the world model's own variance. The
    critic is initialised to 0, where the reward is the plain error.

    Loss: curiosity_critic, (c - e)^2 / 2.
    """

    def __init__(self, spec: AgentSpec, *, hidden: int = 256):
        super().__init__(spec)
        width = prod(spec.target_shape)
        self.state = RunningMeanStd((width,))
        self.code = ActionCode(spec.act_space)
        self.critic = perceptron([spec.memory_dim + width + self.code.width, hidden, hidden, 1])
        nn.init.zeros_(self.critic[-1].weight)

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        self.state.update(out.y[:, :-1].flatten(2), roll.new_steps(roll.valid))
        return self._error(out) - self._baseline(roll, out)

    def losses(self, roll: Sequences, out: Outputs) -> dict[str, Tensor]:
        return {"curiosity_critic": 0.5 * (self._baseline(roll, out) - self._error(out)).square()}

    def _error(self, out: Outputs) -> Tensor:
        return out.error.detach().square().flatten(2).mean(-1)

    def _baseline(self, roll: Sequences, out: Outputs) -> Tensor:
        y = self.state(out.y[:, :-1].detach().flatten(2))
        return self.critic(torch.cat([out.h.detach(), y, self.code(roll.new_steps(roll.act))], -1))[..., 0]
