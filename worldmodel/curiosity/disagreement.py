"""Disagreement of an ensemble of forward models."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from worldmodel.curiosity.base import AgentSpec, Curiosity
from worldmodel.curiosity.blocks.features import RandomFeatures
from worldmodel.curiosity.blocks.forward_model import ForwardModel
from worldmodel.errors import check_range
from worldmodel.model.world_model import Outputs
from worldmodel.types import Rollout, Sequences


class Disagreement(Curiosity):
    """Variance over an ensemble of forward models: mean_d var_k f_k(phi(o_t), a_t)_d.

    phi are fixed random features (Pathak et al. 2019, arXiv 1906.04161). The reward does not depend on the real next
    observation, so members that have all learned the mean of a noise source agree on it.

    The paper normalises the reward as RND does, does not cut its return at the episode's end
    (policy.objective.episodic_int=false) and uses no other reward (policy.objective.weight_ext=0).

    Loss: disagreement, the sum of the members' mean squared errors. Each member drops a random share `drop` of its
    steps and the remaining ones are scaled up, as in the authors' code, so that members see different data.
    """

    def __init__(
        self,
        spec: AgentSpec,
        *,
        members: int = 5,
        dim: int = 128,
        hidden: int = 256,
        blocks: int = 4,
        drop: float = 0.2,
    ):
        super().__init__(spec)
        check_range("curiosity.members", members, "[2, inf)", whole=True)
        check_range("curiosity.drop", drop, "[0, 1)")
        self.features = RandomFeatures(spec, dim=dim)
        self.model = ForwardModel(self.features.width, spec.act_space, hidden=hidden, blocks=blocks, count=members)
        self.drop = drop

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        return self._spread(self.features.update_and_encode(roll), roll)

    def predict_reward(self, roll: Rollout, out: Outputs) -> Tensor:
        return self._spread(self.features(roll), roll)

    def _spread(self, phi: Tensor, roll: Sequences) -> Tensor:
        return self.model(phi[:, :-1], roll.new_steps(roll.act)).var(0, correction=0).mean(-1)

    def losses(self, roll: Sequences, out: Outputs) -> dict[str, Tensor]:
        phi = self.features(roll)
        error = self.model(phi[:, :-1], roll.new_steps(roll.act)) - phi[:, 1:]  # (members, B, T, width)
        return {"disagreement": F.dropout(error.square().mean(-1), self.drop).sum(0)}
