"""The policy and its two values: (h, z) -> act."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoders import Encoder
from worldmodel.policy.distributions import make_distribution
from worldmodel.types import Obs

CHOICE = 0.01  # gain of the layer that chooses, at first


def _linear(inp: int, out: int, gain: float) -> nn.Linear:
    layer = nn.Linear(inp, out)
    _begin(layer, gain)
    return layer


def _begin(layer: nn.Linear, gain: float) -> None:
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)


class ActorCritic(nn.Module):
    """One hidden trunk for the action and one for the two values (extrinsic, intrinsic).

    `memory_gradient` decides whether the policy's losses shape the memory, or learn from the h and z that were stored
    while acting. `reads_memory=False` leaves it the present latent alone. `memory_gain` scales h beside it and is
    learnt, from this value on: a policy that begins with little of it (with nothing, as a branch in ReZero, Bachlechner
    et al. 2020) is less disturbed by an h that moves while the world model learns, and lets it in as far as it is of
    use.

    With `own_encoder`, the present latent is that of an encoder of the policy's own, which learns from the policy's
    losses: the world model's features move with its losses, and are not chosen for what an action needs.

    Temperature goes linearly from `temperature` to `temperature_end` over the first `anneal` share of training.
    """

    def __init__(
        self,
        dim: int,
        latent: tuple[int, ...],
        act_space: gym.Space,
        *,
        hidden: int = 128,
        memory_gradient: bool = True,
        reads_memory: bool = True,
        memory_gain: float = 1.0,
        own_encoder: bool = False,
        make_encoder: Callable[[], Encoder] | None = None,
        noise: Literal["learned", "fixed", "none"] = "learned",
        std: float = 1.0,
        null_action: int | None = None,
        null_bias: float = 0.0,
        temperature: float = 1.0,
        temperature_end: float = 1.0,
        anneal: float = 1.0,
    ):
        super().__init__()
        if temperature <= 0 or temperature_end <= 0:
            raise ValueError(f"policy.temperature={temperature}, {temperature_end}: must be above 0")
        self.memory_gradient, self.reads_memory = memory_gradient, reads_memory
        self.memory_gain = nn.Parameter(torch.full((1,), float(memory_gain))) if reads_memory else None
        self.schedule = (temperature, temperature_end, anneal)
        self.register_buffer("temperature", torch.tensor(float(temperature)))
        self.dist = make_distribution(act_space, noise=noise, std=std, null_action=null_action, null_bias=null_bias)
        self.encoder = make_encoder() if own_encoder else None
        inp = int(torch.tensor(latent).prod()) + (dim if reads_memory else 0)
        self.trunk = _linear(inp, 2 * hidden, 2**0.5)
        self.actor = _linear(hidden, self.dist.size, CHOICE)
        self.critic = _linear(hidden, 2, 0.1)

    def reset_actor(self) -> list[nn.Parameter]:
        """Re-initialise the layer that chooses, nearly uniformly; returns its parameters."""
        _begin(self.actor, CHOICE)
        return list(self.actor.parameters())

    def see(self, obs: Obs, z: Tensor) -> Tensor:
        """What it reads of an observation (*lead, ...), whose latent in the world model is z (*lead, *latent)."""
        return z if self.encoder is None else self.encoder(obs)

    def anneal(self, progress: float) -> None:
        """Set the temperature for a share of training gone by, in [0, 1]."""
        start, stop, share = self.schedule
        self.temperature.fill_(start + (stop - start) * min(1.0, progress / max(share, 1e-9)))

    def forward(self, h: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """h (*lead, D), z (*lead, *latent) -> action parameters (*lead, size), values (*lead, 2): ext, int."""
        x = z.flatten(h.ndim - 1)
        if self.reads_memory:
            x = torch.cat([self.memory_gain * h, x], -1)
        actor, critic = F.gelu(self.trunk(x)).chunk(2, -1)
        return self.actor(actor), self.critic(critic)

    def act(self, h: Tensor, z: Tensor, greedy: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """h (N, D), z (N, *latent) -> act (N, *act_shape), logp (N,), values (N, 2)."""
        params, values = self(h, z)
        if greedy:
            act = self.dist.mode(params)
            return act, torch.zeros_like(values[..., 0]), values
        act, logp = self.dist.sample(params, self.temperature)
        return act, logp, values
