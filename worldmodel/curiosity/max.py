"""Model-based active exploration."""

from __future__ import annotations

from math import exp, log, prod

import torch
from torch import Tensor

from worldmodel.curiosity.base import AgentSpec, Curiosity
from worldmodel.curiosity.blocks.ensemble import Ensemble
from worldmodel.errors import check_range
from worldmodel.model.action_embedding import ActionCode
from worldmodel.model.world_model import Outputs
from worldmodel.running_stats import RunningMeanStd
from worldmodel.types import Rollout, Sequences

LOGVAR_MIN, LOGVAR_MAX = -5.0, -1.0


class MAX(Curiosity):
    """Jensen-Renyi divergence of an ensemble of Gaussians over the normalised change of the latent.

    It is the expected information that a transition gives about which member is right (Shyam et al. 2019, arXiv
    1810.12162). The state is the world model's latent y, without the memory's h. Before members are compared, their
    variances v are moved towards the largest one, v_max - decay (v_max - v), as in the authors' code. Here real
    transitions are rewarded; the paper plans towards the divergence in imagination.

    `per_dimension` takes means over the latent's dimensions where the paper, whose states have few, has sums. Otherwise
    the divergence of members that are 0.2 standard deviations apart is near log K in 64 dimensions, and constant.

    Loss: max, the sum over members of mean_d (delta - mu)^2 / v + log v.
    """

    def __init__(
        self,
        spec: AgentSpec,
        *,
        members: int = 8,
        hidden: int = 128,
        layers: int = 4,
        decay: float = 0.1,
        per_dimension: bool = True,
    ):
        super().__init__(spec)
        check_range("curiosity.decay", decay, "[0, 1]")
        check_range("curiosity.layers", layers, "[1, inf)", whole=True)
        width = prod(spec.target_shape)
        self.state, self.delta = RunningMeanStd((width,)), RunningMeanStd((width,))
        self.code = ActionCode(spec.act_space)
        self.ensemble = Ensemble(members, [width + self.code.width, *[hidden] * layers, 2 * width])
        self.decay, self.per_dimension = decay, per_dimension
        self.max_reward = log(members)

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        y = out.y.flatten(2)
        self.state.update(y[:, :-1], roll.new_steps(roll.valid))
        self.delta.update(y[:, 1:] - y[:, :-1], roll.new_steps(roll.mask))
        return self.predict_reward(roll, out)

    def predict_reward(self, roll: Rollout, out: Outputs) -> Tensor:
        mean, logvar = self.predict(out.y[:, :-1].flatten(2), roll.new_steps(roll.act))
        largest = exp(LOGVAR_MAX)
        return jensen_renyi(mean, largest - self.decay * (largest - logvar.exp()), per_dimension=self.per_dimension)

    def losses(self, roll: Sequences, out: Outputs) -> dict[str, Tensor]:
        y = out.y.detach().flatten(2)
        mean, logvar = self.predict(y[:, :-1], roll.new_steps(roll.act))
        error = self.delta(y[:, 1:] - y[:, :-1]) - mean
        return {"max": (error.square() * torch.exp(-logvar) + logvar).mean(-1).sum(0)}

    def predict(self, y: Tensor, act: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of the normalised change of the latent, (members, B, T, width) each.

        Arguments: y (B, T, width), act (B, T, *act_shape).
        """
        mean, raw = self.ensemble(torch.cat([self.state(y), self.code(act)], -1)).chunk(2, -1)
        return mean, LOGVAR_MIN + (LOGVAR_MAX - LOGVAR_MIN) * torch.sigmoid(raw)


def jensen_renyi(mean: Tensor, var: Tensor, *, per_dimension: bool = False) -> Tensor:
    """Return the divergence (*lead), in nats, of an equal mixture of K diagonal Gaussians: mean, var (K, *lead, D).

    H(mixture) - mean_k H(k) with the quadratic Renyi entropy H(p) = -log int p^2, for which H(mixture) = -log 1/K^2
    sum_ij N(mu_i - mu_j; 0, v_i + v_j) (Wang et al. 2009; MAX, eq. 9). It is 0 if all members agree, and log K if
    members of equal variance are far apart.

    per_dimension: the logarithms of densities are divided by D, so that the same distance in every dimension gives the
        same divergence whatever D is.
    """
    count, dims = len(mean), mean.shape[-1]
    share = 1 / dims if per_dimension else 1.0
    pairs = []
    for i in range(count):  # each pair once: memory for K pairs instead of K^2
        both = var[i:] + var[i]
        overlap = -0.5 * share * ((mean[i:] - mean[i]).square() / both + both.log()).sum(-1)  # (K - i, *lead)
        overlap[1:] += log(2)  # and j with i
        pairs.append(overlap)
    mixture = 2 * log(count) - torch.cat(pairs).logsumexp(0)
    return mixture - 0.5 * share * (var.log().sum(-1).mean(0) + dims * log(2))
