"""Learning progress of a forward model."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from encoders.encoder import perceptron
from worldmodel.curiosity.base import AgentSpec, Curiosity
from worldmodel.curiosity.blocks.features import RandomFeatures
from worldmodel.curiosity.blocks.forward_model import ForwardModel
from worldmodel.curiosity.blocks.stop_gradient import StopGradient
from worldmodel.model.action_embedding import ActionCode
from worldmodel.model.world_model import Outputs
from worldmodel.types import Rollout, Sequences


class LearningProgress(Curiosity):
    """Expected error of the previous model minus the error of the current one: g(phi_t, a_t) - e_t.

    g predicts the error of the forward model of one update ago. e_t = mean_d (f(phi_t, a_t) - phi_t+1)^2 is the error
    of the current one (learning progress monitoring, Hou et al. 2025, arXiv 2509.25438; phi are fixed random features).

    The error of noise and of learned transitions does not change, so both have reward 0 on average. Transitions that
    are being learned have a positive reward. The reward is negative for new transitions with an error above the
    expected one. The first rollout has no previous model and has reward 0.

    Losses: learning_progress_model, e_t, and learning_progress_error, (g - e'_t)^2 / 2, where e'_t is the error of the
    model that scored the rollout.
    """

    def __init__(
        self,
        spec: AgentSpec,
        *,
        dim: int = 128,
        hidden: int = 256,
        blocks: int = 4,
    ):
        super().__init__(spec)
        self.features = RandomFeatures(spec, dim=dim)
        width = self.features.width
        self.model = ForwardModel(width, spec.act_space, hidden=hidden, blocks=blocks)
        self.past = StopGradient(copy.deepcopy(self.model))
        self.code = ActionCode(spec.act_space)
        self.expected = perceptron([width + self.code.width, hidden, hidden, 1])
        self.register_buffer("begun", torch.zeros((), dtype=torch.bool))

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        phi = self.features.update_and_encode(roll)
        progress = self._expected(phi, roll) - self._error(self.model, phi, roll)
        progress = torch.where(self.begun, progress, 0.0)
        if self.training:  # an evaluation rollout is not an update
            self.past.net.load_state_dict(self.model.state_dict())
            self.begun.fill_(True)
        return progress

    def losses(self, roll: Sequences, out: Outputs) -> dict[str, Tensor]:
        phi = self.features(roll)
        was = self._error(self.past, phi, roll)
        return {
            "learning_progress_model": self._error(self.model, phi, roll),
            "learning_progress_error": 0.5 * (self._expected(phi, roll) - was).square(),
        }

    def _error(self, model: nn.Module, phi: Tensor, roll: Sequences) -> Tensor:
        (expected,) = model(phi[:, :-1], roll.new_steps(roll.act))
        return (expected - phi[:, 1:]).square().mean(-1)

    def _expected(self, phi: Tensor, roll: Sequences) -> Tensor:
        return self.expected(torch.cat([phi[:, :-1], self.code(roll.new_steps(roll.act))], -1))[..., 0]
