"""Embeddings and codes of actions."""

from __future__ import annotations

from math import prod, sqrt

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

SPREAD = (
    0.4  # of a latent with std 0.7 per dimension under the token layer, whose factor is 3 ** -0.5 at initialisation
)


class ActionEmbedding(nn.Module):
    """Learned embedding of actions: (*lead, *act_shape) -> (*lead, dim).

    It is a table for Discrete actions, a sum of tables for MultiDiscrete ones and a linear map for a Box.

    At initialisation uniform actions have a standard deviation of about `SPREAD` per dimension, that of the other half
    of a token; those of a Box in [-1, 1] have 1/3.

    Raises ValueError for other spaces.
    """

    offset: Tensor  # first row of each component's table
    map: nn.Linear | nn.Embedding

    def __init__(self, space: gym.Space, dim: int):
        super().__init__()
        self.box = isinstance(space, gym.spaces.Box)
        if isinstance(space, gym.spaces.Box):
            self.map = nn.Linear(prod(space.shape), dim, bias=False)
            self.lead = len(space.shape)
        elif isinstance(space, gym.spaces.Discrete):
            self.register_buffer("offset", torch.zeros((), dtype=torch.long), persistent=False)
            self.map, self.lead = nn.Embedding(int(space.n), dim), 0
            _scale(self.map, [int(space.n)])
        elif isinstance(space, gym.spaces.MultiDiscrete):
            sizes = torch.as_tensor(space.nvec, dtype=torch.long).flatten()
            self.register_buffer("offset", sizes.cumsum(0) - sizes, persistent=False)
            self.map, self.lead = nn.Embedding(int(sizes.sum()), dim), 1
            _scale(self.map, sizes.tolist())
        else:
            raise ValueError(f"act_space={space}: allowed are Discrete, MultiDiscrete and Box")

    def forward(self, act: Tensor) -> Tensor:
        if self.box:
            return self.map((act.flatten(act.ndim - self.lead) if self.lead else act[..., None]).float())
        embedded = self.map(act + self.offset)
        return embedded.sum(-2) if self.lead else embedded


@torch.no_grad()
def _scale(tables: nn.Embedding, sizes: list[int]) -> None:
    """Scale new tables with these numbers of rows, whose entries have unit variance."""
    spread = sqrt(sum(1 - 1 / n for n in sizes))  # of uniform actions, around the mean over actions
    tables.weight.mul_(SPREAD / max(spread, SPREAD))


class ActionCode(nn.Module):
    """Fixed code of actions: (*lead, *act_shape) -> (*lead, width) float32.

    It is one-hot for Discrete actions, the concatenated one-hot codes of the components for MultiDiscrete ones, and the
    flat values for a Box.

    Raises ValueError for other spaces.
    """

    def __init__(self, space: gym.Space):
        super().__init__()
        self.lead = len(space.shape or ())
        self.sizes: list[int] | None = None
        if isinstance(space, gym.spaces.Box):
            self.width = prod(space.shape)
        elif isinstance(space, gym.spaces.Discrete | gym.spaces.MultiDiscrete):
            self.sizes = [int(n) for n in np.ravel(getattr(space, "nvec", getattr(space, "n", 0)))]
            self.width = sum(self.sizes)
        else:
            raise ValueError(f"act_space={space}: allowed are Discrete, MultiDiscrete and Box")

    def forward(self, act: Tensor) -> Tensor:
        act = act.flatten(act.ndim - self.lead) if self.lead else act[..., None]  # (*lead, components)
        if self.sizes is None:
            return act.float()
        parts = zip(act.unbind(-1), self.sizes, strict=True)
        return torch.cat([F.one_hot(x, n).float() for x, n in parts], -1)


def empty_actions(space: gym.Space, lead: tuple[int, ...], device: torch.device | str) -> Tensor:
    """Return zeros (*lead, *act_shape) in the dtype of stored actions: float32 for a Box, else int64."""
    dtype = torch.float32 if isinstance(space, gym.spaces.Box) else torch.long
    return torch.zeros(*lead, *(space.shape or ()), dtype=dtype, device=device)
