"""Encoder of vectors."""

from __future__ import annotations

from math import prod

import gymnasium as gym
import torch
from torch import Tensor

from encoders.encoder import Encoder, mismatch, over_leading, perceptron


class MLP(Encoder):
    """Linear layers with ReLUs on a vector; a Box of more dimensions is flattened.

    `symlog` compresses the input by sign(x) ln(1 + |x|) (Hafner et al. 2023), so that inputs of unknown scale need no
    running statistics.

    Raises ValueError for a space that is not a Box or MultiBinary.
    """

    name = "mlp"

    def __init__(self, space: gym.Space, dim: int = 128, hidden: tuple[int, ...] = (256,), symlog: bool = True):
        super().__init__()
        if not isinstance(space, gym.spaces.Box | gym.spaces.MultiBinary):
            raise mismatch(self.name, space, "a Box or MultiBinary")
        self.dims, self.symlog = len(space.shape), symlog
        self.inputs = prod(space.shape)
        self.net = perceptron([self.inputs, *hidden, dim])
        self.shape = (dim,)

    def normalise(self, obs: Tensor) -> Tensor:
        """Map raw vectors (*lead, *space.shape) to compressed floats of the same shape."""
        obs = obs.float()
        return torch.sign(obs) * torch.log1p(obs.abs()) if self.symlog else obs

    def forward(self, obs: Tensor) -> Tensor:
        return over_leading(lambda x: self.net(self.normalise(x).reshape(len(x), self.inputs)), obs, self.dims)
