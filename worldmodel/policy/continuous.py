"""Distributions of Box actions in unit space (`UnitBox`): clipped Gaussian, tanh Gaussian and Beta.

Each draws a sample, which its log-probability reads, and executes it as an action within the bounds. The action alone
would not do: clipping has no inverse, and that of tanh loses its precision near the bounds.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.errors import SettingError, check_choice

Noise = Literal["learned", "fixed", "none"]
RECORDED_EDGE = 1e-3  # distance from the bounds of a recorded action, of which a tanh Gaussian's sample is computed
EDGE = 1e-6  # distance of a Beta's samples from 0 and 1, where their log-probability is infinite


class BoxDistribution(nn.Module):
    """Base class: bounds, rounding and shape of the actions of a Box."""

    low: Tensor  # (size,) -inf where there is no bound
    high: Tensor  # (size,)
    step: Tensor  # (size,) distance of neighbouring whole numbers; 0: real numbers

    def __init__(self, space: Box):
        super().__init__()
        self.shape, self.actions = space.shape, math.prod(space.shape)
        step = getattr(space, "step", np.zeros(space.shape))
        for name, value in (("low", space.low), ("high", space.high), ("step", step)):
            flat = torch.as_tensor(np.ravel(value), dtype=torch.float32)
            self.register_buffer(name, flat, persistent=False)
        self.clips = bool((self.low.isfinite() | self.high.isfinite()).any())
        self.rounds = bool((self.step > 0).any())

    def execute(self, sample: Tensor) -> Tensor:
        """Map samples (*lead, *shape) to actions of the same shape: within the bounds, on whole numbers if required."""
        act = self._squash(sample.flatten(sample.ndim - len(self.shape))) if self.shape else self._squash(sample)
        if self.clips:
            act = act.clamp(self.low, self.high)
        if self.rounds:
            whole = torch.round((act + 1) / self.step) * self.step - 1
            act = torch.where(self.step > 0, whole, act)
        return act.view(sample.shape)

    def sample_of(self, act: Tensor) -> Tensor:
        """Map recorded actions (*lead, *shape) to samples that are executed as these, up to the edge of the bounds."""
        flat = act.flatten(act.ndim - len(self.shape)) if self.shape else act
        return self._unsquash(flat).view(act.shape)

    def _squash(self, sample: Tensor) -> Tensor:
        return sample

    def _unsquash(self, act: Tensor) -> Tensor:
        return act

    def _shaped(self, flat: Tensor) -> Tensor:
        return flat.reshape(*flat.shape[:-1], *self.shape)


class Gaussian(BoxDistribution):
    """Gaussian whose samples are clipped to the bounds. Probabilities are those of the samples before clipping.

    noise:
      `learned`  one log-std per dimension, independent of the state, initialised to log `std`.
      `fixed`    the std is `std`.
      `none`     the action is the mean. It has no density, so log-probability and entropy are 0 and PPO has no effect.

    The temperature is a factor of the std. Raises SettingError for any other value of `noise`.
    """

    def __init__(self, space: Box, noise: Noise = "learned", std: float = 1.0):
        super().__init__(space)
        check_choice("policy.actor.noise", noise, ("learned", "fixed", "none"))
        self.noise, self.size = noise, self.actions
        log_std = torch.full((self.size,), math.log(std))
        if noise == "learned":
            self.log_std = nn.Parameter(log_std)
        else:
            self.register_buffer("log_std", log_std)

    def _logp(self, params: Tensor, sample: Tensor, temperature: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return log-probability and entropy (*lead) of the Gaussian, for samples (*lead, size)."""
        log_std = self.log_std + torch.as_tensor(temperature).log()
        unit = (sample - params) * torch.exp(-log_std)
        half = 0.5 * math.log(2 * math.pi)
        return (-0.5 * unit.square() - log_std - half).sum(-1), (log_std + half + 0.5).sum().expand(params.shape[:-1])

    def sample(self, params: Tensor, temperature: Tensor | float) -> tuple[Tensor, Tensor]:
        """Sample: params (N, size) -> sample (N, *shape), log-probability (N,)."""
        if self.noise == "none":
            return self.mode(params), params.new_zeros(params.shape[:-1])
        sample = params + torch.randn_like(params) * torch.exp(self.log_std) * temperature
        return self._shaped(sample), self._logp(params, sample, temperature)[0]

    def mode(self, params: Tensor) -> Tensor:
        """Return the sample of zero noise, the mean: (*lead, *shape)."""
        return self._shaped(params)

    def evaluate(self, params: Tensor, sample: Tensor, temperature: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return log-probability and entropy (nats) of samples (*lead, *shape), each (*lead)."""
        if self.noise == "none":
            zero = params.new_zeros(params.shape[:-1])
            return zero, zero
        return self._logp(params, sample.reshape(params.shape), temperature)


class TanhGaussian(Gaussian):
    """Gaussian whose samples u become actions tanh(u) in dimensions with two bounds (Haarnoja et al. 2018, appendix C).

    Elsewhere it is as `Gaussian`. Log-probabilities are those of the action (before rounding to whole numbers):
    log N(u) - sum_d log(1 - tanh(u_d)^2).

    The entropy is H(N) + E sum_d log(1 - tanh(u_d)^2). It has no closed form; the expectation is estimated from the one
    stored sample, u = mean + std noise, whose noise is held fixed so that the gradient is that of the
    reparametrisation. The greedy action is tanh(mean), the median.
    """

    squashed: Tensor  # (size,) bool: dimensions with two bounds

    def __init__(self, space: Box, noise: Noise = "learned", std: float = 1.0):
        super().__init__(space, noise, std)
        squashed = self.low.isfinite() & self.high.isfinite()
        self.register_buffer("squashed", squashed, persistent=False)
        self.squashes_all = bool(squashed.all())

    def _squash(self, sample: Tensor) -> Tensor:
        return sample.tanh() if self.squashes_all else torch.where(self.squashed, sample.tanh(), sample)

    def _unsquash(self, act: Tensor) -> Tensor:
        inner = act.clamp(RECORDED_EDGE - 1, 1 - RECORDED_EDGE).atanh()  # a recorded action at its bound: u = ±3.8
        return inner if self.squashes_all else torch.where(self.squashed, inner, act)

    def _logp(self, params: Tensor, sample: Tensor, temperature: Tensor | float) -> tuple[Tensor, Tensor]:
        logp, entropy = super()._logp(params, sample, temperature)
        std = torch.exp(self.log_std) * temperature
        again = params + ((sample - params) / std).detach() * std  # equals the sample
        return logp - self._log_slope(sample), entropy + self._log_slope(again)

    def _log_slope(self, sample: Tensor) -> Tensor:
        """Return sum_d log(1 - tanh(u_d)^2) over the squashed dimensions: (*lead, size) -> (*lead)."""
        slope = 2 * (math.log(2) - sample - F.softplus(-2 * sample))  # does not underflow for large |u|
        return (slope if self.squashes_all else torch.where(self.squashed, slope, 0.0)).sum(-1)


class Beta(BoxDistribution):
    """Beta distribution over [-1, 1] in each dimension, for bounded actions (Chou et al. 2017, ICML).

    A sample b in (0, 1) becomes the action 2 b - 1, whose density is p(b) / 2. The two parameters of a dimension are
    1 + softplus(output), so that the density has one maximum. A temperature T raises it to the power 1 / T. The spread
    depends on the state, so the noise is always learned and there is no initial std. The entropy is exact.

    Raises SettingError for another `noise` and for a dimension without two bounds.
    """

    def __init__(self, space: Box, noise: Noise = "learned"):
        super().__init__(space)
        allowed = "with policy.actor.distribution=beta"
        if noise != "learned":
            raise SettingError("policy.actor.noise", noise, f"{allowed} is learned")
        if (free := ~(self.low.isfinite() & self.high.isfinite())).any():
            where = f"dimension {int(free.nonzero()[0])} of the actions {' '.join(str(space).split())} is unbounded"
            raise SettingError("policy.actor.distribution", "beta", f"are gaussian and tanh, because {where}")
        self.size = 2 * self.actions

    def _density(self, params: Tensor, temperature: Tensor | float) -> torch.distributions.Beta:
        """Return the distribution of b, (*lead, actions), for params (*lead, 2 actions)."""
        alpha, beta = (1 + F.softplus(params) / temperature).chunk(2, -1)
        return torch.distributions.Beta(alpha, beta, validate_args=False)

    def sample(self, params: Tensor, temperature: Tensor | float) -> tuple[Tensor, Tensor]:
        """Sample: params (N, size) -> sample (N, *shape) in (0, 1), log-probability (N,)."""
        dist = self._density(params, temperature)
        sample = dist.sample().clamp(EDGE, 1 - EDGE)
        return self._shaped(sample), self._logp(dist, sample)

    def _logp(self, dist: torch.distributions.Beta, sample: Tensor) -> Tensor:
        return (dist.log_prob(sample) - math.log(2)).sum(-1)

    def _squash(self, sample: Tensor) -> Tensor:
        return 2 * sample - 1

    def _unsquash(self, act: Tensor) -> Tensor:
        return ((act + 1) / 2).clamp(EDGE, 1 - EDGE)

    def mode(self, params: Tensor) -> Tensor:
        """Return the most probable sample: (*lead, *shape)."""
        alpha, beta = (F.softplus(params) + 1e-6).chunk(2, -1)  # each minus 1
        return self._shaped((alpha / (alpha + beta)).clamp(EDGE, 1 - EDGE))

    def evaluate(self, params: Tensor, sample: Tensor, temperature: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return log-probability and entropy (nats) of samples (*lead, *shape), each (*lead)."""
        dist = self._density(params, temperature)
        flat = sample.reshape(*params.shape[:-1], self.actions)
        return self._logp(dist, flat), (dist.entropy() + math.log(2)).sum(-1)
