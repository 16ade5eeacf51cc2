"""What a signal sees of an observation: features of its own, apart from the world model's."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import gymnasium as gym
import torch
from torch import Tensor, nn

from encoders import Encoder
from worldmodel.curiosity.blocks.stop_gradient import StopGradient
from worldmodel.curiosity.blocks.whitening import Whitening
from worldmodel.model.targets.inverse import ActionHead
from worldmodel.running_stats import RunningMeanStd
from worldmodel.types import Obs, Rollout, map_obs


def new_obs(roll: Rollout) -> Obs:
    """Leaves (B, T+1, ...): the observations at both ends of the T new transitions."""
    return map_obs(lambda x: x[:, -roll.new - 1 :], roll.obs)


def next_obs(roll: Rollout) -> Obs:
    """Leaves (B, T, ...): the observations that the T new transitions lead to."""
    return map_obs(lambda x: x[:, -roll.new :], roll.obs)


class Flat(nn.Module):
    """An encoder whose latents, maps or not, come as vectors: obs (*lead, ...) -> (*lead, width)."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder, self.width = encoder, prod(encoder.shape)

    def forward(self, obs: Obs) -> Tensor:
        return self.encoder(obs).flatten(-len(self.encoder.shape))


class RandomFeatures(nn.Module):
    """Features of a random network that never learns, of whitened observations and in units of their own running std
    (Burda et al. 2019, "Large-scale study of curiosity-driven learning", section 2). They stay put, so an error that
    falls is a prediction that got better."""

    def __init__(self, make_encoder: Callable[..., Encoder], obs_space: gym.Space, encoder: Encoder, *, dim: int):
        super().__init__()
        self.whitening = Whitening(obs_space, encoder)
        self.features = StopGradient(Flat(make_encoder(space=self.whitening.space, dim=dim)))
        self.width = self.features.net.width
        self.scale = RunningMeanStd((self.width,), eps=1e-2)

    def review(self, roll: Rollout) -> Tensor:
        """The features of a fresh rollout, (B, T+1, width), which the statistics take in first."""
        self.whitening.update(roll)
        phi = self._raw(roll)
        self.scale.update(phi[:, :-1], roll.tail(roll.valid))
        return self.scale(phi)

    def forward(self, roll: Rollout) -> Tensor:
        """The features at both ends of the T new transitions: (B, T+1, width), without gradients."""
        return self.scale(self._raw(roll))

    def _raw(self, roll: Rollout) -> Tensor:
        return self.features(self.whitening(new_obs(roll)))


class InverseFeatures(nn.Module):
    """Features that tell what the agent did, and so nothing that it has no say in: an encoder phi learns to name the
    action from (phi(o_t), phi(o_t+1)) (ICM, Pathak et al. 2017, eq. 2-3)."""

    def __init__(self, make_encoder: Callable[..., Encoder], act_space: gym.Space, *, dim: int, hidden: int):
        super().__init__()
        self.features = Flat(make_encoder(dim=dim))
        self.width = self.features.width
        self.head = ActionHead(2 * self.width, act_space, hidden)

    def forward(self, roll: Rollout) -> Tensor:
        """phi at both ends of the T new transitions: (B, T+1, width), with gradients."""
        return self.features(new_obs(roll))

    def loss(self, phi: Tensor, roll: Rollout) -> Tensor:
        """phi (B, T+1, width) as `forward` gave it -> the loss of the action (B, T), zero where masked."""
        pairs = torch.cat([phi[:, :-1], phi[:, 1:]], -1)
        return self.head.loss(pairs, roll.tail(roll.act), roll.tail(roll.mask))
