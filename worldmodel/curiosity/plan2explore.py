"""Ensemble disagreement about the next latent."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from worldmodel.curiosity.base import AgentSpec, Curiosity
from worldmodel.curiosity.blocks.ensemble import Ensemble
from worldmodel.errors import check_range
from worldmodel.model.action_embedding import ActionCode
from worldmodel.model.world_model import Outputs
from worldmodel.running_stats import RunningMeanStd
from worldmodel.types import Rollout, Sequences


class Plan2Explore(Curiosity):
    """Spread of an ensemble of one-step predictions of the next latent: mean_d std_k g_k(h_t, y_t, a_t)_d.

    The latent is that of the world model, in units of its std (Sekar et al. 2020, arXiv 2005.05960; the std is that
    of the authors' code, the paper's eq. 6 has the variance). Here real transitions are rewarded; the paper trains the
    policy on the reward in imagination.

    Loss: plan2explore, the sum over members of mean_d (y_t+1 - g_k)^2 / 2.
    """

    def __init__(
        self,
        spec: AgentSpec,
        *,
        members: int = 10,
        hidden: int = 128,
        layers: int = 4,
    ):
        super().__init__(spec)
        check_range("curiosity.layers", layers, "[1, inf)", whole=True)
        width = prod(spec.target_shape)
        self.state = RunningMeanStd((width,))
        self.code = ActionCode(spec.act_space)
        self.ensemble = Ensemble(members, [spec.memory_dim + width + self.code.width, *[hidden] * layers, width])

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        y = out.y.flatten(2)
        self.state.update(y[:, :-1], roll.new_steps(roll.valid))
        return self.predict_reward(roll, out)

    def predict_reward(self, roll: Rollout, out: Outputs) -> Tensor:
        return self.predict(out.h, out.y[:, :-1].flatten(2), roll.new_steps(roll.act)).std(0, correction=0).mean(-1)

    def losses(self, roll: Sequences, out: Outputs) -> dict[str, Tensor]:
        y = out.y.detach().flatten(2)
        error = self.predict(out.h.detach(), y[:, :-1], roll.new_steps(roll.act)) - self.state(y[:, 1:])
        return {"plan2explore": 0.5 * error.square().mean(-1).sum(0)}

    def predict(self, h: Tensor, y: Tensor, act: Tensor) -> Tensor:
        """Return the predicted next latent, normalised: (members, B, T, width).

        Arguments: h (B, T, D), y (B, T, width), act (B, T, *act_shape).
        """
        return self.ensemble(torch.cat([h, self.state(y), self.code(act)], -1))
