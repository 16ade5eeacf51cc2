"""Random network distillation."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import gymnasium as gym
import torch
from torch import Tensor, nn

from encoders import Encoder
from encoders.encoder import orthogonal
from worldmodel.curiosity.base import Curiosity
from worldmodel.curiosity.blocks.features import Flat, next_obs
from worldmodel.curiosity.blocks.stop_gradient import StopGradient
from worldmodel.curiosity.blocks.whitening import Whitening
from worldmodel.model.world_model import Outputs
from worldmodel.types import Obs, Rollout


class Distillation(nn.Module):
    """A predictor that learns to give what a fixed random network gives; its error tells how new an observation is.

    Both are an encoder of their own on whitened observations and linear layers of width `dim` with ReLUs before them:
    one in the target, three in the predictor. With the `conv` encoder of pixels that is the paper's pair plus a layer
    in each, without which the target of a symbolic view, whose encoder is linear, would be linear, too.
    """

    def __init__(
        self, make_encoder: Callable[..., Encoder], obs_space: gym.Space, encoder: Encoder, *, dim: int, clip: float
    ):
        super().__init__()
        self.whitening = Whitening(obs_space, encoder, clip=clip)
        target, predictor = (Flat(make_encoder(space=self.whitening.space, dim=dim)) for _ in range(2))
        self.target = StopGradient(nn.Sequential(target, *_layers(target.width, dim, 1)))
        self.predictor = nn.Sequential(predictor, *_layers(predictor.width, dim, 3))

    def update(self, roll: Rollout) -> None:
        """Bring the whitening up to date, once for each rollout; the first one, of the untrained policy, primes it."""
        self.whitening.update(roll)

    def forward(self, obs: Obs) -> Tensor:
        """Raw observations (*lead, ...) -> mean squared error (*lead), with the predictor's gradients."""
        obs = self.whitening(obs)
        return (self.predictor(obs) - self.target(obs)).square().mean(-1)


def _layers(inputs: int, width: int, count: int) -> list[nn.Module]:
    sizes = [inputs, *[width] * count]
    return [m for a, b in pairwise(sizes) for m in (nn.ReLU(), orthogonal(nn.Linear(a, b)))]


class RND(Curiosity):
    """mean_d ( f(o_t+1) - g(o_t+1) )^2 of a predictor f and a fixed random g: random network distillation (Burda et al.
    2018, arXiv 1810.12894). It is paid for observations unlike those seen before, whatever led there.

    The paper divides it by the std of its discounted sum (reward.normalise=return), adds it with weight 1 to an
    extrinsic one of weight 2, and lets it go on beyond the episode's end (policy.ppo.episodic_int=false): those are
    the settings of curiosity=rnd_published. `proportion` of the steps, drawn anew in each minibatch, teach the
    predictor (.25 with 128 environments in the paper, 1 with up to 32, so that it doesn't learn faster the more there
    are). Loss: rnd.

    Two departures: of stacked frames all are seen, not the last alone; and the first rollout primes the whitening, not
    steps before training.
    """

    def __init__(
        self,
        make_encoder: Callable[..., Encoder],
        obs_space: gym.Space,
        encoder: Encoder,
        *,
        dim: int = 128,
        clip: float = 5.0,
        proportion: float = 1.0,
    ):
        super().__init__()
        if not 0.0 < proportion <= 1.0:
            raise ValueError(f"curiosity.proportion={proportion}: allowed is above 0 to 1")
        self.distillation = Distillation(make_encoder, obs_space, encoder, dim=dim, clip=clip)
        self.proportion = proportion

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        self.distillation.update(roll)
        return self.distillation(next_obs(roll))

    def losses(self, roll: Rollout, out: Outputs) -> dict[str, Tensor]:
        error = self.distillation(next_obs(roll))
        if self.proportion < 1.0:
            error = error * (torch.rand_like(error) < self.proportion) / self.proportion
        return {"rnd": error}
