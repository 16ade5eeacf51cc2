"""Random policy."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from worldmodel.policy.actor_critic import ActorCritic


class RandomPolicy(ActorCritic):
    """Policy that is uniform over the actions, also if the most probable action is requested.

    In a Box it is uniform within the bounds, and standard normal in dimensions without bounds. The values are learned.

    It takes the arguments of `ActorCritic`, so that it can replace it in any configuration. Arguments about actions
    have no effect.
    """

    low: Tensor  # *act_shape, of a Box
    high: Tensor
    bounded: Tensor  # bool

    def __init__(self, dim: int, latent: tuple[int, ...], act_space: gym.Space, **options: Any):
        super().__init__(dim, latent, act_space, **options | {"noise": "none", "null_bias": 0.0, "own_encoder": False})
        self.box = isinstance(act_space, gym.spaces.Box)
        if isinstance(act_space, gym.spaces.Box):
            low, high = (torch.as_tensor(bound, dtype=torch.float32) for bound in (act_space.low, act_space.high))
            self.register_buffer("low", low, persistent=False)
            self.register_buffer("high", high, persistent=False)
            self.register_buffer("bounded", low.isfinite() & high.isfinite(), persistent=False)

    def forward(self, h: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        params, values = super().forward(h, z)
        return 0.0 * params, values  # keeps the parameters in the graph, because DDP waits for the gradient of each

    def act(self, h: Tensor, z: Tensor, greedy: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        act, logp, values = super().act(h, z)
        if self.box:
            within = self.low + (self.high - self.low) * torch.rand_like(act)
            act = torch.where(self.bounded, within, torch.randn_like(act))
        return act, logp, values
