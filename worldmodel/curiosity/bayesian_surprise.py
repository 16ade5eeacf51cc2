"""Bayesian surprise of an ensemble."""

from __future__ import annotations

from math import log, pi, prod

import torch
from torch import Tensor
from torch.nn import functional as F

from worldmodel.curiosity.base import AgentSpec, Curiosity
from worldmodel.curiosity.blocks.ensemble import Ensemble
from worldmodel.errors import check_range
from worldmodel.model.action_embedding import ActionCode
from worldmodel.model.heads.dynamics import bound_logvar
from worldmodel.model.world_model import Outputs
from worldmodel.running_stats import RunningMeanStd
from worldmodel.types import Rollout, Sequences


class BayesianSurprise(Curiosity):
    """Information that a transition gave about which member of an ensemble is right: D_KL( posterior || prior ).

        posterior_k = p_k(delta_t+1) / sum_j p_j(delta_t+1),   reward = log K + sum_k posterior_k log posterior_k

    Bayesian surprise is the divergence of the posterior from the prior over models (Itti & Baldi 2009; with a latent
    variable in place of the members, Mazzaglia et al. 2022, arXiv 2104.07495). Here the prior over the K members is
    uniform, and each p_k is a Gaussian over the normalised change of the world model's latent y, given y and the
    action. `MAX` has the expectation over what might be observed, in another entropy; this is the information in what
    was observed. `Disagreement` compares the means alone.

    Noise pays only while members differ about its mean or variance, whatever its size: their likelihoods of an outcome
    are equal once all have learnt its distribution. Variances are bounded by exp(3), above that of unpredictable
    changes, which is 1. A transition for which all members make the same wrong prediction pays nothing either.

    `per_dimension` takes the mean of the log-likelihoods over the latent's dimensions; otherwise their sum, whose
    posterior is one member alone in 64 dimensions for small differences.

    Loss: bayesian_surprise, the sum over members of mean_d (delta - mu)^2 / v + log v. Each member drops a random share
    `drop` of its steps, as in `Disagreement`.
    """

    def __init__(
        self,
        spec: AgentSpec,
        *,
        members: int = 8,
        hidden: int = 128,
        layers: int = 4,
        drop: float = 0.2,
        per_dimension: bool = True,
    ):
        super().__init__(spec)
        check_range("curiosity.layers", layers, "[1, inf)", whole=True)
        check_range("curiosity.drop", drop, "[0, 1)")
        width = prod(spec.target_shape)
        self.state, self.delta = RunningMeanStd((width,)), RunningMeanStd((width,))
        self.code = ActionCode(spec.act_space)
        self.ensemble = Ensemble(members, [width + self.code.width, *[hidden] * layers, 2 * width])
        self.drop, self.per_dimension = drop, per_dimension

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        y = out.y.flatten(2)
        self.state.update(y[:, :-1], roll.new_steps(roll.valid))
        self.delta.update(y[:, 1:] - y[:, :-1], roll.new_steps(roll.mask))
        delta = self.delta(y[:, 1:] - y[:, :-1])
        return information_gain(delta, *self.predict(y[:, :-1], roll), per_dimension=self.per_dimension)

    def losses(self, roll: Sequences, out: Outputs) -> dict[str, Tensor]:
        y = out.y.detach().flatten(2)
        mean, logvar = self.predict(y[:, :-1], roll)
        error = self.delta(y[:, 1:] - y[:, :-1]) - mean
        loss = (error.square() * torch.exp(-logvar) + logvar).mean(-1)  # (members, B, T)
        return {"bayesian_surprise": F.dropout(loss, self.drop).sum(0)}

    def predict(self, y: Tensor, roll: Sequences) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of the normalised change of y (B, T, width), (members, B, T, width) each."""
        code = self.code(roll.new_steps(roll.act))
        mean, raw = self.ensemble(torch.cat([self.state(y), code], -1)).chunk(2, -1)
        return mean, bound_logvar(raw)


def information_gain(x: Tensor, mean: Tensor, logvar: Tensor, *, per_dimension: bool = False) -> Tensor:
    """Return the divergence (*lead), in nats, of the posterior over K Gaussians given x (*lead, D) from a uniform one.

    mean, logvar (K, *lead, D). The result is 0 if all densities of x are equal, and log K if one is far above the
    others. per_dimension: the logarithms of densities are divided by D.
    """
    each = -0.5 * ((x - mean).square() * torch.exp(-logvar) + logvar + log(2 * pi))
    posterior = (each.mean(-1) if per_dimension else each.sum(-1)).float().log_softmax(0)  # (K, *lead)
    return (posterior.exp() * posterior).sum(0) + log(len(mean))
