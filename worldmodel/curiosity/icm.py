"""Intrinsic curiosity module."""

from __future__ import annotations

from torch import Tensor

from worldmodel.curiosity.base import AgentSpec, Curiosity
from worldmodel.curiosity.blocks.features import InverseFeatures
from worldmodel.curiosity.blocks.forward_model import ForwardModel
from worldmodel.model.world_model import Outputs
from worldmodel.types import Rollout, Sequences


class ICM(Curiosity):
    """Forward-model error 1/2 || f(phi(o_t), a_t) - phi(o_t+1) ||^2 in inverse-dynamics features.

    The features phi learn to predict the action (Pathak et al. 2017, arXiv 1705.05363, eq. 5-7).

    Losses: icm_inverse, 0.8 times the action's cross-entropy, and icm_forward, 0.2 times the reward's formula (the
    paper's beta). As in the authors' code, the gradient of icm_forward also reaches phi, which contracts features that
    are unpredictable. With `stop_gradient` it does not.
    """

    def __init__(
        self,
        spec: AgentSpec,
        *,
        dim: int = 128,
        hidden: int = 256,
        inverse_weight: float = 0.8,
        forward_weight: float = 0.2,
        stop_gradient: bool = False,
    ):
        super().__init__(spec)
        self.features = InverseFeatures(spec, dim=dim, hidden=hidden)
        self.model = ForwardModel(self.features.width, spec.act_space, hidden=hidden, blocks=0)
        self.inverse_weight, self.forward_weight = inverse_weight, forward_weight
        self.stop_gradient = stop_gradient

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        return self._error(self.features(roll), roll)

    def losses(self, roll: Sequences, out: Outputs) -> dict[str, Tensor]:
        phi = self.features(roll)
        inverse = self.features.loss(phi, roll)
        error = self._error(phi.detach() if self.stop_gradient else phi, roll)
        return {"icm_inverse": self.inverse_weight * inverse, "icm_forward": self.forward_weight * error}

    def _error(self, phi: Tensor, roll: Sequences) -> Tensor:
        (expected,) = self.model(phi[:, :-1], roll.new_steps(roll.act))
        return 0.5 * (expected - phi[:, 1:]).square().sum(-1)
