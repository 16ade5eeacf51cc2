"""Rewarding impact-driven exploration."""

from __future__ import annotations

from torch import Tensor

from worldmodel.curiosity.base import AgentSpec, Curiosity
from worldmodel.curiosity.blocks.episodic import EpisodicVisits
from worldmodel.curiosity.blocks.features import InverseFeatures
from worldmodel.curiosity.blocks.forward_model import ForwardModel
from worldmodel.model.world_model import Outputs
from worldmodel.types import Rollout, Sequences


class RIDE(Curiosity):
    """Feature change per root of the episode's visits: || phi(o_t+1) - phi(o_t) ||_2 / sqrt(N_ep(o_t+1)).

    The division makes going back and forth unprofitable (Raileanu & Rocktaeschel 2020, arXiv 2002.12292). The paper
    does not normalise the reward (reward.normalise=none) and weights it by 0.1 or 0.5 in MiniGrid.

    phi learns from both models of ICM, as in the paper. Losses: ride_inverse, the action's cross-entropy, and
    ride_forward, || f(phi_t, a_t) - phi_t+1 ||_2 as in the authors' code, with their weights. `bits` and `capacity` are
    those of `EpisodicVisits`. Observations are counted; the paper counts the underlying states.
    """

    def __init__(
        self,
        spec: AgentSpec,
        *,
        dim: int = 128,
        hidden: int = 256,
        forward_weight: float = 10.0,
        inverse_weight: float = 0.1,
        bits: int = 32,
        capacity: int = 1024,
    ):
        super().__init__(spec)
        self.features = InverseFeatures(spec, dim=dim, hidden=hidden)
        self.model = ForwardModel(self.features.width, spec.act_space, hidden=hidden, blocks=0)
        self.visits = EpisodicVisits(spec, bits=bits, capacity=capacity)
        self.forward_weight, self.inverse_weight = forward_weight, inverse_weight

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        phi = self.features(roll)
        return (phi[:, 1:] - phi[:, :-1]).norm(dim=-1) * self.visits(roll).rsqrt()

    def losses(self, roll: Sequences, out: Outputs) -> dict[str, Tensor]:
        phi = self.features(roll)
        (expected,) = self.model(phi[:, :-1], roll.new_steps(roll.act))
        error = (expected - phi[:, 1:]).norm(dim=-1)
        inverse = self.features.loss(phi, roll)
        return {"ride_inverse": self.inverse_weight * inverse, "ride_forward": self.forward_weight * error}
