"""Encoder of vectors."""

from __future__ import annotations

from math import prod

import gymnasium as gym
import torch
from torch import Tensor

from encoders.encoder import Encoder, keep_second_moment, mismatch, over_leading, perceptron
from encoders.standardise import Standardise


class MLP(Encoder):
    """Linear layers with ReLUs on a vector; a Box of more dimensions is flattened.

    normalise: the input is in units of its running spread; see `Standardise`. The agent that the encoder is a part of
        sets the statistics. At initialisation, inputs of unit second moment then give latents of unit second moment.
        It has no effect on MultiBinary spaces.
    symlog: compress the input by sign(x) ln(1 + |x|) (Hafner et al. 2023), for inputs of unknown scale. None: unless it
        is normalised.

    Raises ValueError for a space that is not a Box or MultiBinary.
    """

    name = "mlp"

    def __init__(
        self,
        space: gym.Space,
        dim: int = 128,
        hidden: tuple[int, ...] = (256,),
        symlog: bool | None = None,
        normalise: bool = False,
    ):
        super().__init__()
        if not isinstance(space, gym.spaces.Box | gym.spaces.MultiBinary):
            raise mismatch(self.name, space, "a Box or MultiBinary")
        self.dims, self.inputs = len(space.shape), prod(space.shape)
        self.standardise = Standardise(space.shape) if normalise and isinstance(space, gym.spaces.Box) else None
        self.symlog = self.standardise is None if symlog is None else symlog
        self.net = perceptron([self.inputs, *hidden, dim])
        if self.standardise is not None:
            keep_second_moment(self.net)
        self.shape = (dim,)

    def normalise(self, obs: Tensor) -> Tensor:
        """Map raw vectors (*lead, *space.shape) to normalised or compressed floats of the same shape."""
        obs = obs.float() if self.standardise is None else self.standardise(obs)
        return torch.sign(obs) * torch.log1p(obs.abs()) if self.symlog else obs

    def forward(self, obs: Tensor) -> Tensor:
        return over_leading(lambda x: self.net(self.normalise(x).reshape(len(x), self.inputs)), obs, self.dims)
