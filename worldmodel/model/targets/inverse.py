"""Features trained by inverse dynamics."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from encoders import Encoder
from worldmodel.model.targets.base import LEARNT, Target
from worldmodel.model.targets.categorical import cross_entropy
from worldmodel.types import Obs


class Inverse(Target):
    """A separate encoder phi, trained by inverse dynamics alone: the action from (phi(o_t), phi(o_t+1)).

    Source: ICM, Pathak et al. 2017. y = phi without gradient. Loss: `inverse`, that of `ActionHead`.
    """

    scale_horizon = LEARNT

    def __init__(
        self,
        make_encoder: Callable[..., Encoder],
        act_space: gym.Space,
        *,
        dim: int = 64,
        hidden: int = 256,
    ):
        super().__init__()
        self.features = make_encoder(dim=dim)
        self.shape = self.features.shape
        self.head = ActionHead(2 * prod(self.shape), act_space, hidden)

    @torch.no_grad()
    def forward(self, obs: Obs, z: Tensor) -> Tensor:
        return self.features(obs)

    def losses(self, obs: Obs, act: Tensor, z: Tensor, y: Tensor, mask: Tensor) -> dict[str, Tensor]:
        phi = self.features(obs).flatten(2)  # (B, L+1, D), with gradients
        return {"inverse": self.head.loss(torch.cat([phi[:, :-1], phi[:, 1:]], -1), act, mask)}


class ActionHead(nn.Module):
    """Head that predicts an action: categorical for Discrete and MultiDiscrete spaces, the mean for a Box.

    Raises ValueError for other spaces.
    """

    start: Tensor  # smallest value of each discrete component
    centre: Tensor  # of a Box, per dimension
    scale: Tensor  # half the range of a Box, per dimension

    def __init__(self, inputs: int, space: gym.Space, hidden: int):
        super().__init__()
        self.sizes: list[int] | None = None
        if isinstance(space, gym.spaces.Discrete | gym.spaces.MultiDiscrete):
            self.sizes = [int(n) for n in np.ravel(getattr(space, "nvec", getattr(space, "n", 0)))]
            outputs = sum(self.sizes)
            self.register_buffer("start", torch.as_tensor(np.ravel(space.start)), persistent=False)
        elif isinstance(space, gym.spaces.Box):
            outputs = prod(space.shape)
            low, high = (torch.as_tensor(np.ravel(b), dtype=torch.float32) for b in (space.low, space.high))
            bounded = (high - low).isfinite() & (low < high) & (high - low < 1e6)
            centre = torch.where(bounded, (low + high) / 2, 0.0)
            scale = torch.where(bounded, (high - low) / 2, 1.0)
            self.register_buffer("centre", centre, persistent=False)
            self.register_buffer("scale", scale, persistent=False)
        else:
            raise ValueError(f"target=inverse with act_space={space}: allowed are Discrete, MultiDiscrete and Box")
        self.net = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))

    def loss(self, x: Tensor, act: Tensor, mask: Tensor) -> Tensor:
        """Return the loss (B, L), zero where masked, for x (B, L, inputs), act (B, L, *act_shape), mask (B, L).

        It is the cross-entropy, summed over components, or the mean squared error in units of half the Box's range.
        """
        out, act = self.net(x), act.flatten(2) if act.ndim > 2 else act[..., None]
        if self.sizes is None:
            error = (out - (act - self.centre) / self.scale).square().mean(-1)
            return torch.where(mask, error, 0.0)
        codes = torch.where(mask[..., None], act - self.start, 0).long()  # masked rows may have any value
        return torch.where(mask, cross_entropy(out, codes, self.sizes), 0.0)
