"""Policy with two values, reading the memory h and the latent z."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn import functional as F

from encoders import Encoder
from worldmodel.policy.continuous import Noise
from worldmodel.policy.distributions import Family, make_distribution
from worldmodel.types import Obs

CHOICE = 0.01  # initial gain of the layer that chooses the action


def _linear(inp: int, out: int, gain: float) -> nn.Linear:
    layer = nn.Linear(inp, out)
    _begin(layer, gain)
    return layer


def _begin(layer: nn.Linear, gain: float) -> None:
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)


class Choice(NamedTuple):
    """Actions of N environments, and what they were drawn from."""

    act: Tensor  # (N, *act_shape) executed, in unit space for a Box
    sample: Tensor  # (N, *act_shape) before clipping or squashing; only the log-probability reads it
    logp: Tensor  # (N,)
    values: Tensor  # (N, 2): extrinsic, intrinsic


class ActorCritic(nn.Module):
    """Policy and critic, each with one hidden layer; the critic has an extrinsic and an intrinsic value.

    The extrinsic value is in units of `ReturnScale`.

    memory_gradient: the policy's losses train the memory; otherwise they use the h and z stored while acting.
    reads_memory: the input is h and the present latent; otherwise the latent alone.
    memory_gain: initial value of a learned factor of h. With a small one (or 0, as in ReZero, Bachlechner et al. 2020),
        the policy is less disturbed by an h that changes while the world model learns.
    own_encoder: the present latent is that of a separate encoder, trained by the policy's losses. The features of the
        world model change with its losses and are not selected for actions.
    distribution, noise, std: of Box actions, see `make_distribution`.
    temperature, temperature_end, anneal: the temperature changes linearly from the first to the second value over the
        first `anneal` share of training.

    Raises ValueError for a temperature of 0 or below.
    """

    temperature: Tensor  # scalar
    encoder: Encoder | None

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
        distribution: Family = "tanh",
        noise: Noise = "learned",
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
        self.dist = make_distribution(
            act_space,
            distribution=distribution,
            noise=noise,
            std=std,
            null_action=null_action,
            null_bias=null_bias,
        )
        self.encoder = None
        if own_encoder:
            assert make_encoder is not None
            self.encoder = make_encoder()
        inp = int(torch.tensor(latent).prod()) + (dim if reads_memory else 0)
        self.actor_trunk = _linear(inp, hidden, 2**0.5)
        self.critic_trunk = _linear(inp, hidden, 2**0.5)
        self.actor = _linear(hidden, self.dist.size, CHOICE)
        self.critic = _linear(hidden, 2, 0.1)
        self.eval()

    def reset_actor(self) -> list[nn.Parameter]:
        """Re-initialise the layer that chooses the action, nearly uniformly; return its parameters."""
        _begin(self.actor, CHOICE)
        return list(self.actor.parameters())

    @torch.no_grad()
    def rescale_values(self, ratio: Tensor) -> None:
        """Multiply the extrinsic value of every input by the scalar `ratio` (van Hasselt et al. 2016, PopArt)."""
        for parameter in self.critic.parameters():  # weight (2, hidden), bias (2,)
            scale_rows(parameter, torch.stack([ratio, torch.ones_like(ratio)]))

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters with separate gradient norms, by name: what both read, the actor's, the critic's."""
        actor = [*self.actor_trunk.parameters(), *self.actor.parameters(), *self.dist.parameters()]
        critic = [*self.critic_trunk.parameters(), *self.critic.parameters()]
        own = {id(p) for p in (*actor, *critic)}
        return {
            "policy_encoder": [p for p in self.parameters() if id(p) not in own],
            "actor": actor,
            "critic": critic,
        }

    def fit_returns(self, returns: Tensor) -> None:
        """Receive the returns of a dataset's episodes, (E,), before the first update on it. Has no effect here."""

    def see(self, obs: Obs, z: Tensor) -> Tensor:
        """Return the latent that the policy reads: that of `own_encoder`, else the world model's z (*lead, *latent).

        obs: observation, leaves (*lead, *obs_shape).
        """
        return z if self.encoder is None else self.encoder(obs)

    def train(self, mode: bool = True) -> ActorCritic:
        """Stay in evaluation mode: with dropout, the policy that learns would differ from the one that acted."""
        return super().train(False)

    def anneal(self, progress: float) -> None:
        """Set the temperature for a completed share of training in [0, 1]."""
        start, stop, share = self.schedule
        self.temperature.fill_(start + (stop - start) * min(1.0, progress / max(share, 1e-9)))

    def forward(self, h: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Map h (*lead, D), z (*lead, *latent) to parameters (*lead, size) and values (*lead, 2), extrinsic first."""
        x = z.flatten(h.ndim - 1)
        if self.memory_gain is not None:
            x = torch.cat([self.memory_gain * h, x], -1)
        return self.actor(F.gelu(self.actor_trunk(x))), self.critic(F.gelu(self.critic_trunk(x)))

    def act(self, h: Tensor, z: Tensor, greedy: bool = False) -> Choice:
        """Choose actions for h (N, D), z (N, *latent)."""
        params, values = self(h, z)
        if greedy:
            sample, logp = self.dist.mode(params), torch.zeros_like(values[..., 0])
        else:
            sample, logp = self.dist.sample(params, self.temperature)
        return Choice(self.dist.execute(sample), sample, logp, values)


def scale_rows(x: Tensor, factors: Tensor) -> None:
    """Multiply the rows of x (R, ...) in place by factors (R,); x may be sharded over ranks."""
    factors = factors.to(x.dtype).view(-1, *[1] * (x.ndim - 1))
    if isinstance(x, DTensor):
        factors = distribute_tensor(factors, x.device_mesh, x.placements)
    x.mul_(factors)
