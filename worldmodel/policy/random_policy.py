"""A policy that doesn't look."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from worldmodel.policy.actor_critic import ActorCritic


class RandomPolicy(ActorCritic):
    """Uniform over the actions, whatever it sees, also where the most probable one is asked for; in a Box uniform
    within its bounds, and standard normal where it has none. Its values learn, its actions don't.

    It takes the arguments of `ActorCritic`, to stand in for it in any configuration; those about actions do nothing.
    """

    def __init__(self, dim: int, latent: tuple[int, ...], act_space: gym.Space, **options: Any):
        super().__init__(dim, latent, act_space, **options | {"noise": "none", "null_bias": 0.0, "own_encoder": False})
        self.box = isinstance(act_space, gym.spaces.Box)
        if self.box:
            low, high = (torch.as_tensor(bound, dtype=torch.float32) for bound in (act_space.low, act_space.high))
            self.register_buffer("low", low, persistent=False)
            self.register_buffer("high", high, persistent=False)
            self.register_buffer("bounded", low.isfinite() & high.isfinite(), persistent=False)

    def forward(self, h: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        params, values = super().forward(h, z)
        return 0.0 * params, values  # still a part of the graph: DDP waits for the gradient of each parameter

    def act(self, h: Tensor, z: Tensor, greedy: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        act, logp, values = super().act(h, z)
        if self.box:
            within = self.low + (self.high - self.low) * torch.rand_like(act)
            act = torch.where(self.bounded, within, torch.randn_like(act))
        return act, logp, values
