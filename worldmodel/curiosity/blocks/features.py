"""Features of an observation for a signal, separate from those of the world model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from encoders import Dict, Encoder, Grid
from worldmodel.curiosity.base import AgentSpec
from worldmodel.curiosity.blocks.stop_gradient import StopGradient
from worldmodel.model.targets.inverse import ActionHead
from worldmodel.obs_normalizer import signal_normalizer
from worldmodel.running_stats import RunningMeanStd
from worldmodel.types import Obs, Sequences


def new_obs(roll: Sequences) -> Obs:
    """Return the observations at both ends of the T new transitions; leaves (B, T+1, ...)."""
    return roll.new_rows(roll.obs)


def next_obs(roll: Sequences) -> Obs:
    """Return the next observations of the T new transitions; leaves (B, T, ...)."""
    return roll.next_rows(roll.obs)


def with_convolutions(make_encoder: Callable[..., Any], channels: Sequence[int]) -> Callable[..., Any]:
    """Return `make_encoder` with convolutions over symbolic cells, for the learnt and random features of signals.

    The encoder of cells is one linear map by default, in which an object has unrelated weights at each position. Here
    it begins with 2x2 convolutions of these widths and ReLUs, fewer of them for grids that are too small. An encoder of
    cells with further layers is left as it is, and so are those of images, which have convolutions, and of
    vectors. Without `channels` nothing changes.
    """

    def make(*args: Any, **changes: Any) -> Any:
        encoder = make_encoder(*args, **changes)
        if isinstance(encoder, Dict):
            for name, part in encoder.parts.items():
                encoder.parts[name] = convolved(part, channels)
        return convolved(encoder, channels)

    return make if channels else make_encoder


def convolved(encoder: Any, channels: Sequence[int]) -> Any:
    """Return a linear encoder of cells with convolutions instead; any other one unchanged."""
    if not isinstance(encoder, Grid) or encoder.convolved or len(encoder.net) > 1:
        return encoder
    space = gym.spaces.Box(0, 255, (*encoder.cells, len(encoder.num_values)), np.uint8)
    fitting = tuple(channels[: min(encoder.cells) - 1])
    return Grid(space, encoder.shape[0], encoder.num_values, channels=fitting)


class Flat(nn.Module):
    """Encoder with flattened latents: obs (*lead, ...) -> (*lead, width)."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder, self.width = encoder, prod(encoder.shape)

    def forward(self, obs: Obs) -> Tensor:
        return self.encoder(obs).flatten(-len(self.encoder.shape))


class RandomFeatures(nn.Module):
    """Features of a fixed random network on whitened observations, in units of their own running std.

    Source: Burda et al. 2019, "Large-scale study of curiosity-driven learning", section 2. The features do not change,
    so a falling error means a better prediction.
    """

    def __init__(self, spec: AgentSpec, *, dim: int):
        super().__init__()
        self.whitening, space = signal_normalizer(spec.obs_space, spec.encoder)
        self.features = StopGradient(Flat(spec.make_encoder(space=space, dim=dim)))
        self.width = self.features.net.width
        self.scale = RunningMeanStd((self.width,), eps=1e-2)

    def update_and_encode(self, roll: Sequences) -> Tensor:
        """Update the statistics with a new rollout, then return its features: (B, T+1, width)."""
        self.whitening.update(roll)
        phi = self._raw(roll)
        self.scale.update(phi[:, :-1], roll.new_steps(roll.valid))
        return self.scale(phi)

    def forward(self, roll: Sequences) -> Tensor:
        """Return the features at both ends of the T new transitions: (B, T+1, width), without gradients."""
        return self.scale(self._raw(roll))

    def _raw(self, roll: Sequences) -> Tensor:
        return self.features(self.whitening(new_obs(roll)))


class InverseFeatures(nn.Module):
    """Features trained by inverse dynamics: an encoder phi learns to predict the action from (phi(o_t), phi(o_t+1)).

    They contain what the agent's action affects, and not what it cannot influence (ICM, Pathak et al. 2017, eq. 2-3).
    """

    def __init__(self, spec: AgentSpec, *, dim: int, hidden: int):
        super().__init__()
        self.features = Flat(spec.make_encoder(dim=dim))
        self.width = self.features.width
        self.head = ActionHead(2 * self.width, spec.act_space, hidden)

    def forward(self, roll: Sequences) -> Tensor:
        """Return phi at both ends of the T new transitions: (B, T+1, width), with gradients."""
        return self.features(new_obs(roll))

    def loss(self, phi: Tensor, roll: Sequences) -> Tensor:
        """Return the loss of the action (B, T), zero where masked, for phi (B, T+1, width) from `forward`."""
        pairs = torch.cat([phi[:, :-1], phi[:, 1:]], -1)
        return self.head.loss(pairs, roll.new_steps(roll.act), roll.new_steps(roll.mask))
