"""Prediction error in the space of a random network."""

from __future__ import annotations

from torch import Tensor

from worldmodel.curiosity.base import AgentSpec, Curiosity
from worldmodel.curiosity.blocks.features import RandomFeatures
from worldmodel.curiosity.blocks.forward_model import ForwardModel
from worldmodel.model.world_model import Outputs
from worldmodel.types import Rollout, Sequences


class RandomFeatureError(Curiosity):
    """Forward-model error in fixed random features phi: mean_d ( f(phi(o_t), a_t) - phi(o_t+1) )^2.

    Source: Burda et al. 2019, "Large-scale study of curiosity-driven learning", arXiv 1808.04355. Unlike `Error`, it
    uses its own forward model, whose input is a single observation without the past. The paper does not cut the
    intrinsic return at the episode's end and uses no other reward (experiment=random_features_published).

    Loss: random_features.
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
        self.model = ForwardModel(self.features.width, spec.act_space, hidden=hidden, blocks=blocks)

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        return self._error(self.features.update_and_encode(roll), roll)

    def losses(self, roll: Sequences, out: Outputs) -> dict[str, Tensor]:
        return {"random_features": self._error(self.features(roll), roll)}

    def _error(self, phi: Tensor, roll: Sequences) -> Tensor:
        (expected,) = self.model(phi[:, :-1], roll.new_steps(roll.act))
        return (expected - phi[:, 1:]).square().mean(-1)
