"""Action distributions as plain functions of the policy head's output, because sampling is in the hot loop."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import reduce
from typing import Literal, cast

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.errors import check_choice


class Categorical(nn.Module):
    """One discrete action. `null_bias` is added to the logit of the null action.

    Raises ValueError for a `null_bias` without a null action.
    """

    bias: Tensor  # (size,)

    def __init__(self, space: gym.spaces.Discrete, null_action: int | None = None, null_bias: float = 0.0):
        super().__init__()
        self.size = int(space.n)
        bias = torch.zeros(self.size)
        if null_bias:
            if null_action is None:
                raise ValueError(f"policy.null_bias={null_bias}: needs env.null_action, allowed are 0..{self.size - 1}")
            bias[null_action] = null_bias
        self.register_buffer("bias", bias, persistent=False)

    def log_probs(self, params: Tensor, temperature: Tensor | float) -> Tensor:
        """Return the log-probability of each action: (*lead, size)."""
        return F.log_softmax((params + self.bias) / temperature, -1)

    def sample(self, params: Tensor, temperature: Tensor | float) -> tuple[Tensor, Tensor]:
        """Sample by the Gumbel trick: params (N, size) -> action (N,), log-probability (N,)."""
        logp = self.log_probs(params, temperature)
        act = (logp - torch.empty_like(logp).exponential_().log_()).argmax(-1)
        return act, logp.gather(-1, act[..., None]).squeeze(-1)

    def mode(self, params: Tensor) -> Tensor:
        """Return the most probable action: (*lead)."""
        return (params + self.bias).argmax(-1)

    def evaluate(self, params: Tensor, act: Tensor, temperature: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return log-probability and entropy (nats), each (*lead)."""
        logp = self.log_probs(params, temperature)
        return logp.gather(-1, act[..., None]).squeeze(-1), -(logp.exp() * logp).sum(-1)


class MultiCategorical(nn.Module):
    """Several independent discrete actions: (*lead, M)."""

    def __init__(self, space: gym.spaces.MultiDiscrete, null_action: int | None = None, null_bias: float = 0.0):
        super().__init__()
        sizes = [int(n) for n in space.nvec.flatten()]
        self.parts = nn.ModuleList(Categorical(gym.spaces.Discrete(n), null_action, null_bias) for n in sizes)
        self.sizes, self.size = sizes, sum(sizes)

    def _components(self, params: Tensor) -> Iterator[tuple[Categorical, Tensor]]:
        """Split params (*lead, sum of sizes) between the distributions."""
        pairs = zip(self.parts, params.split(self.sizes, -1), strict=True)
        return cast(Iterator[tuple[Categorical, Tensor]], pairs)

    def sample(self, params: Tensor, temperature: Tensor | float) -> tuple[Tensor, Tensor]:
        """Sample: params (N, sum of sizes) -> action (N, M), log-probability (N,)."""
        pairs = [p.sample(x, temperature) for p, x in self._components(params)]
        return torch.stack([a for a, _ in pairs], -1), reduce(torch.add, (logp for _, logp in pairs))

    def mode(self, params: Tensor) -> Tensor:
        """Return the most probable action: (*lead, M)."""
        return torch.stack([p.mode(x) for p, x in self._components(params)], -1)

    def evaluate(self, params: Tensor, act: Tensor, temperature: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return log-probability and entropy (nats), each (*lead)."""
        components = zip(self._components(params), act.unbind(-1), strict=True)
        pairs = [p.evaluate(x, a, temperature) for (p, x), a in components]
        return reduce(torch.add, (logp for logp, _ in pairs)), reduce(torch.add, (entropy for _, entropy in pairs))


class Gaussian(nn.Module):
    """Gaussian over a Box action.

    noise:
      `learned`  one log-std per dimension, independent of the state, initialised to log `std`.
      `fixed`    the std is `std`.
      `none`     the action is the mean. It has no density, so log-probability and entropy are 0 and PPO has no effect.

    Raises ValueError for any other value of `noise`.
    """

    def __init__(self, space: gym.spaces.Box, noise: Literal["learned", "fixed", "none"] = "learned", std: float = 1.0):
        super().__init__()
        check_choice("policy.noise", noise, ("learned", "fixed", "none"))
        self.noise, self.shape = noise, space.shape
        self.size = math.prod(space.shape)
        log_std = torch.full((self.size,), math.log(std))
        if noise == "learned":
            self.log_std = nn.Parameter(log_std)
        else:
            self.register_buffer("log_std", log_std)

    def _logp(self, params: Tensor, act: Tensor, temperature: Tensor | float) -> tuple[Tensor, Tensor]:
        log_std = self.log_std + torch.as_tensor(temperature).log()
        unit = (act - params) * torch.exp(-log_std)
        half = 0.5 * math.log(2 * math.pi)
        return (-0.5 * unit.square() - log_std - half).sum(-1), (log_std + half + 0.5).sum().expand(params.shape[:-1])

    def sample(self, params: Tensor, temperature: Tensor | float) -> tuple[Tensor, Tensor]:
        """Sample: params (N, size) -> action (N, *shape), log-probability (N,)."""
        if self.noise == "none":
            return self.mode(params), params.new_zeros(params.shape[:-1])
        act = params + torch.randn_like(params) * torch.exp(self.log_std) * temperature
        return act.unflatten(-1, self.shape), self._logp(params, act, temperature)[0]

    def mode(self, params: Tensor) -> Tensor:
        """Return the mean: (*lead, *shape)."""
        return params.unflatten(-1, self.shape)

    def evaluate(self, params: Tensor, act: Tensor, temperature: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return log-probability and entropy (nats), each (*lead)."""
        if self.noise == "none":
            zero = params.new_zeros(params.shape[:-1])
            return zero, zero
        return self._logp(params, act.flatten(params.ndim - 1), temperature)


def make_distribution(
    space: gym.Space,
    *,
    noise: Literal["learned", "fixed", "none"] = "learned",
    std: float = 1.0,
    null_action: int | None = None,
    null_bias: float = 0.0,
) -> Categorical | MultiCategorical | Gaussian:
    """Return the distribution for an action space.

    Raises ValueError for spaces other than Discrete, MultiDiscrete and Box.
    """
    if isinstance(space, gym.spaces.Discrete):
        return Categorical(space, null_action, null_bias)
    if isinstance(space, gym.spaces.MultiDiscrete):
        return MultiCategorical(space, null_action, null_bias)
    if isinstance(space, gym.spaces.Box):
        return Gaussian(space, noise, std)
    raise ValueError(f"act_space={space}: allowed are Discrete, MultiDiscrete and Box")
