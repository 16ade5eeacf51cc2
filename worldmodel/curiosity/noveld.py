"""Difference of novelty."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from worldmodel.curiosity.base import AgentSpec, Curiosity
from worldmodel.curiosity.blocks.episodic import EpisodicVisits
from worldmodel.curiosity.blocks.features import new_obs
from worldmodel.curiosity.rnd import Distillation
from worldmodel.errors import check_range
from worldmodel.model.world_model import Outputs
from worldmodel.types import Rollout, Sequences


class NovelD(Curiosity):
    """Increase of novelty at the first visit in the episode: max( n(o_t+1) - alpha n(o_t), 0 ) * 1[ N_ep(o_t+1) = 1 ].

    n is the novelty by random network distillation, the norm of the predictor's error (Zhang et al. 2021, "NovelD").
    The agent is rewarded for crossing the boundary of the familiar region, once per episode. Under noise every
    observation is new, and the gate is always open.

    Loss: noveld, the mean squared error of `RND`.
    """

    def __init__(
        self,
        spec: AgentSpec,
        *,
        dim: int = 128,
        clip: float = 5.0,
        alpha: float = 0.5,
        bits: int = 32,
        capacity: int = 1024,
    ):
        super().__init__(spec)
        check_range("curiosity.alpha", alpha, "[0, inf)")
        self.distillation = Distillation(spec, dim=dim, clip=clip)
        self.visits = EpisodicVisits(spec, bits=bits, capacity=capacity)
        self.dim, self.alpha = dim, alpha

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        self.distillation.update(roll)
        novelty = (self.dim * self.distillation(new_obs(roll))).sqrt()  # (N, T+1), the norm from the mean of squares
        gain = F.relu(novelty[:, 1:] - self.alpha * novelty[:, :-1])
        return torch.where(self.visits(roll) == 1, gain, 0.0)

    def losses(self, roll: Sequences, out: Outputs) -> dict[str, Tensor]:
        return {"noveld": self.distillation.loss(roll)}
