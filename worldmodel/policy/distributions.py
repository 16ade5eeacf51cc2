"""Action distributions as plain functions of the policy head's output, because sampling is in the hot loop.

A distribution draws a sample, which its log-probability reads; `execute` turns it into the action. For discrete actions
both are the same tensor; for those of a Box see `continuous`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import Literal, cast, get_args

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.errors import check_choice
from worldmodel.policy.continuous import Beta, Gaussian, Noise, TanhGaussian

Family = Literal["gaussian", "tanh", "beta"]


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

    def execute(self, sample: Tensor) -> Tensor:
        """Return the action of a sample, which is the same tensor."""
        return sample

    def sample_of(self, act: Tensor) -> Tensor:
        """Return the sample of an action, which is the same tensor."""
        return act

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

    def execute(self, sample: Tensor) -> Tensor:
        """Return the action of a sample, which is the same tensor."""
        return sample

    def sample_of(self, act: Tensor) -> Tensor:
        """Return the sample of an action, which is the same tensor."""
        return act

    def mode(self, params: Tensor) -> Tensor:
        """Return the most probable action: (*lead, M)."""
        return torch.stack([p.mode(x) for p, x in self._components(params)], -1)

    def evaluate(self, params: Tensor, act: Tensor, temperature: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return log-probability and entropy (nats), each (*lead)."""
        components = zip(self._components(params), act.unbind(-1), strict=True)
        pairs = [p.evaluate(x, a, temperature) for (p, x), a in components]
        return reduce(torch.add, (logp for logp, _ in pairs)), reduce(torch.add, (entropy for _, entropy in pairs))


Distribution = Categorical | MultiCategorical | Gaussian | Beta


def make_distribution(
    space: gym.Space,
    *,
    distribution: Family = "tanh",
    noise: Noise = "learned",
    std: float = 1.0,
    null_action: int | None = None,
    null_bias: float = 0.0,
) -> Distribution:
    """Return the distribution for an action space; `distribution`, `noise` and `std` are those of a Box.

    Raises ValueError for spaces other than Discrete, MultiDiscrete and Box, and for options that do not fit.
    """
    check_choice("policy.actor.distribution", distribution, get_args(Family))
    if isinstance(space, gym.spaces.Discrete):
        return Categorical(space, null_action, null_bias)
    if isinstance(space, gym.spaces.MultiDiscrete):
        return MultiCategorical(space, null_action, null_bias)
    if not isinstance(space, gym.spaces.Box):
        raise ValueError(f"act_space={space}: allowed are Discrete, MultiDiscrete and Box")
    if distribution == "beta":
        return Beta(space, noise)
    return TanhGaussian(space, noise, std) if distribution == "tanh" else Gaussian(space, noise, std)
