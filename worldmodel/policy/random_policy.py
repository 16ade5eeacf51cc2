"""Random policy."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from worldmodel.policy.actor_critic import ActorCritic, Choice
from worldmodel.policy.continuous import Gaussian


class RandomPolicy(ActorCritic):
    """Policy that is uniform over the actions, also if the most probable action is requested.

    In a Box it is uniform within the bounds (with whole numbers, over these), and standard normal, clipped to the bound
    if there is one, in the other dimensions. The values are learned.

    It takes the arguments of `ActorCritic`, so that it can replace it in any configuration. Arguments about actions
    have no effect.
    """

    def __init__(self, dim: int, latent: tuple[int, ...], act_space: gym.Space, **options: Any):
        options |= {"distribution": "gaussian", "noise": "none", "null_bias": 0.0, "own_encoder": False}
        super().__init__(dim, latent, act_space, **options)

    def forward(self, h: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        params, values = super().forward(h, z)
        return 0.0 * params, values  # keeps the parameters in the graph, because DDP waits for the gradient of each

    def act(self, h: Tensor, z: Tensor, greedy: bool = False) -> Choice:
        act, sample, logp, values = super().act(h, z)
        if isinstance(dist := self.dist, Gaussian):
            bounded = dist.low.isfinite() & dist.high.isfinite()
            uniform = (2 * torch.rand_like(values.new_empty(len(values), dist.size)) - 1) * (1 + dist.step / 2)
            sample = torch.where(bounded, uniform, torch.randn_like(uniform)).view(sample.shape)
            act = dist.execute(sample)
        return Choice(act, sample, logp, values)
