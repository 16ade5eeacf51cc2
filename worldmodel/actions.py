"""Actions as the transformer sees them."""

from __future__ import annotations

import gymnasium as gym
import torch
from torch import Tensor, nn


class ActionEmbedding(nn.Module):
    """(*lead, *act_shape) -> (*lead, dim): a table for discrete actions, a sum of tables for multi-discrete ones,
    a linear map for boxes."""

    def __init__(self, space: gym.Space, dim: int):
        super().__init__()
        self.box = isinstance(space, gym.spaces.Box)
        if self.box:
            self.map = nn.Linear(int(torch.tensor(space.shape).prod()), dim, bias=False)
            self.lead = len(space.shape)
        elif isinstance(space, gym.spaces.Discrete):
            self.register_buffer("offset", torch.zeros((), dtype=torch.long), persistent=False)
            self.map, self.lead = nn.Embedding(int(space.n), dim), 0
        elif isinstance(space, gym.spaces.MultiDiscrete):
            sizes = torch.as_tensor(space.nvec, dtype=torch.long).flatten()
            self.register_buffer("offset", sizes.cumsum(0) - sizes, persistent=False)
            self.map, self.lead = nn.Embedding(int(sizes.sum()), dim), 1
        else:
            raise ValueError(f"act_space={space}: allowed are Discrete, MultiDiscrete and Box")

    def forward(self, act: Tensor) -> Tensor:
        if self.box:
            return self.map(act.flatten(act.ndim - self.lead).float())
        embedded = self.map(act + self.offset)
        return embedded.sum(-2) if self.lead else embedded


def empty_actions(space: gym.Space, lead: tuple[int, ...], device: torch.device | str) -> Tensor:
    """Zeros of shape (*lead, *act_shape) in the dtype that the data path uses: int64, or float32 for boxes."""
    dtype = torch.float32 if isinstance(space, gym.spaces.Box) else torch.long
    return torch.zeros(*lead, *(space.shape or ()), dtype=dtype, device=device)
