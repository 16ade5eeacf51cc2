"""Prediction error minus the predicted aleatoric variance."""

from __future__ import annotations

from torch import Tensor

from worldmodel.curiosity.base import AgentSpec, Curiosity
from worldmodel.curiosity.blocks.features import RandomFeatures
from worldmodel.curiosity.blocks.forward_model import ForwardModel
from worldmodel.model.heads.dynamics import bound_logvar
from worldmodel.model.world_model import Outputs
from worldmodel.types import Rollout, Sequences


class AMA(Curiosity):
    """Prediction error minus its predicted aleatoric part: || phi(o_t+1) - mu ||^2 - eta tr(Sigma).

    A forward model predicts the mean mu and the diagonal covariance Sigma (Mavor-Parker et al. 2022, "How to stay
    curious while avoiding noisy TVs", arXiv 2102.04399). Here phi are fixed random features instead of pixels.
    `Surprise` divides by the variance instead of subtracting it.

    Loss: ama, mean_d (phi - mu)^2 / sigma^2 + log sigma^2, halved.
    """

    def __init__(
        self,
        spec: AgentSpec,
        *,
        dim: int = 128,
        hidden: int = 256,
        blocks: int = 4,
        eta: float = 1.0,
    ):
        super().__init__(spec)
        self.features = RandomFeatures(spec, dim=dim)
        width = self.features.width
        self.model = ForwardModel(width, spec.act_space, hidden=hidden, blocks=blocks, outputs=2 * width)
        self.eta = eta

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        squares, logvar = self._predict(self.features.update_and_encode(roll), roll)
        return squares.sum(-1) - self.eta * logvar.exp().sum(-1)

    def losses(self, roll: Sequences, out: Outputs) -> dict[str, Tensor]:
        squares, logvar = self._predict(self.features(roll), roll)
        return {"ama": 0.5 * (squares * (-logvar).exp() + logvar).mean(-1)}

    def _predict(self, phi: Tensor, roll: Sequences) -> tuple[Tensor, Tensor]:
        """Return the squared errors and log-variances, (B, T, width) each, for phi (B, T+1, width)."""
        mean, raw = self.model(phi[:, :-1], roll.new_steps(roll.act))[0].chunk(2, -1)
        return (phi[:, 1:] - mean).square(), bound_logvar(raw)
