"""Random network distillation."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from encoders.encoder import orthogonal
from worldmodel.curiosity.base import AgentSpec, Curiosity
from worldmodel.curiosity.blocks.features import Flat, new_obs, next_obs
from worldmodel.curiosity.blocks.stop_gradient import StopGradient
from worldmodel.errors import check_range
from worldmodel.model.world_model import Outputs
from worldmodel.obs_normalizer import signal_normalizer
from worldmodel.types import Obs, Rollout, Sequences


class Distillation(nn.Module):
    """Predictor that learns the output of a fixed random network; its error measures how new an observation is.

    Each of the two is its own encoder on whitened observations, followed by linear layers of width `dim` with a ReLU
    before each: one layer in the target, three in the predictor. With the `conv` encoder of pixels this is the paper's
    pair plus one layer in each. Without that layer the target of a symbolic view would be linear, because its encoder
    is linear.
    """

    def __init__(self, spec: AgentSpec, *, dim: int, clip: float):
        super().__init__()
        self.whitening, space = signal_normalizer(spec.obs_space, spec.encoder, clip=clip)
        target, predictor = (Flat(spec.make_encoder(space=space, dim=dim)) for _ in range(2))
        self.target = StopGradient(nn.Sequential(target, *_layers(target.width, dim, 1)))
        self.predictor = nn.Sequential(predictor, *_layers(predictor.width, dim, 3))

    def update(self, roll: Sequences) -> None:
        """Update the whitening, once per rollout; the first rollout, of the untrained policy, initialises it."""
        self.whitening.update(roll)

    def forward(self, obs: Obs) -> Tensor:
        """Return the mean squared error (*lead) for raw observations (*lead, ...), with the predictor's gradients."""
        obs = self.whitening(obs)
        return (self.predictor(obs) - self.target(obs)).square().mean(-1)

    def loss(self, roll: Sequences) -> Tensor:
        """Return the error of each transition's next observation (B, T).

        An episode's first observation is no transition's next one. Its error is added to that of its first transition.
        With data.context=0 the first row of every rollout counts as such an observation.
        """
        error = self(new_obs(roll))  # (B, T+1)
        return error[:, 1:] + torch.where(roll.new_steps(roll.starts), error[:, :-1], 0.0)


def _layers(inputs: int, width: int, count: int) -> list[nn.Module]:
    sizes = [inputs, *[width] * count]
    return [m for a, b in pairwise(sizes) for m in (nn.ReLU(), orthogonal(nn.Linear(a, b)))]


class RND(Curiosity):
    """Random network distillation: mean_d ( f(o_t+1) - g(o_t+1) )^2 of a predictor f and a fixed random network g.

    Observations unlike those seen before are rewarded, whatever action led there (Burda et al. 2018, arXiv 1810.12894).

    experiment=rnd_published has its settings: divide by the std of the discounted sum (reward.normalise=return),
    add with weight 1 to an extrinsic reward of weight 2, and do not cut the return at the episode's end
    (policy.objective.episodic_int=false). In each minibatch a newly drawn share `proportion` of the steps trains the
    predictor. The paper uses 0.25 with 128 environments and 1 with up to 32, so that the predictor does not learn
    faster with more environments.

    Loss: rnd.

    Two departures from the paper:
    - All stacked frames are used, not the last alone.
    - The first rollout initialises the whitening, not steps before training.
    """

    def __init__(
        self,
        spec: AgentSpec,
        *,
        dim: int = 128,
        clip: float = 5.0,
        proportion: float = 1.0,
    ):
        super().__init__(spec)
        check_range("curiosity.proportion", proportion, "(0, 1]")
        self.distillation = Distillation(spec, dim=dim, clip=clip)
        self.proportion = proportion

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        self.distillation.update(roll)
        return self.distillation(next_obs(roll))

    def losses(self, roll: Sequences, out: Outputs) -> dict[str, Tensor]:
        error = self.distillation.loss(roll)
        if self.proportion < 1.0:
            error = error * (torch.rand_like(error) < self.proportion) / self.proportion
        return {"rnd": error}
