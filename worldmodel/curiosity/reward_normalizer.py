"""Normalisation of the raw signal to the intrinsic reward of the policy."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from worldmodel.curiosity.base import PerEnvState
from worldmodel.errors import check_choice
from worldmodel.running_stats import RunningMeanStd


class RewardNormalizer(PerEnvState):
    """Map raw (B, T) -> rew_int (B, T): symlog, centre and normalise, clip, scale, in that order.

    normalise:
      `return`    divide by the running std of the discounted sum of past rewards. The sum runs forward over time and is
                  never reset. The reward itself is not filtered, and no mean is subtracted (Burda et al. 2018, RND).
      `mean_std`  subtract the running mean, divide by the running std.
      `none`      no normalisation.
    centred: subtract the running mean of the reward before the division, so that staying alive pays nothing on average.
        The divisor stays that of the rewards before the subtraction. `mean_std` is centred in any case.

    Raises ValueError for any other value of `normalise`.
    """

    def __init__(
        self,
        num_envs: int,
        *,
        normalise: Literal["return", "mean_std", "none"] = "return",
        gamma: float = 0.99,
        centred: bool = False,
        use_symlog: bool = False,
        clip: float | None = None,
        scale: float = 1.0,
        horizon: float = 1e6,
    ):
        super().__init__()
        check_choice("reward.normalise", normalise, ("return", "mean_std", "none"))
        self.normalise, self.gamma, self.use_symlog, self.clip, self.scale = (
            normalise,
            gamma,
            use_symlog,
            clip,
            scale,
        )
        self.moments = RunningMeanStd(horizon=horizon)
        self.centre = RunningMeanStd(horizon=horizon) if centred and normalise != "mean_std" else None
        self.register_buffer("sum", torch.zeros(num_envs))

    def reset(self, num_envs: int) -> None:
        self.sum = self.sum.new_zeros(num_envs)

    @torch.no_grad()
    def forward(self, raw: Tensor, mask: Tensor) -> Tensor:
        """Update the running statistics with this rollout, then apply them; masked steps have reward 0."""
        rew = torch.where(mask, symlog(raw) if self.use_symlog else raw, 0.0)
        if self.centre is not None:
            self.centre.update(rew, mask)
        if self.normalise == "return":
            sums = torch.empty_like(rew)
            for t in range(rew.shape[1]):
                # a reset is not a step of the stream, so it does not discount
                self.sum = torch.where(mask[:, t], self.gamma * self.sum + rew[:, t], self.sum)
                sums[:, t] = self.sum
            self.moments.update(sums, mask)
        elif self.normalise == "mean_std":
            self.moments.update(rew, mask)
        return torch.where(mask, self.apply(raw), 0.0)

    def apply(self, raw: Tensor) -> Tensor:
        """Return the reward for a raw signal of any shape, with the current statistics."""
        rew = symlog(raw) if self.use_symlog else raw
        if self.centre is not None:
            rew = rew - self.centre.mean
        if self.normalise == "return":
            rew = rew / self.moments.std
        elif self.normalise == "mean_std":
            rew = self.moments(rew)
        if self.clip is not None:
            rew = rew.clamp(-self.clip, self.clip)
        return rew * self.scale


def symlog(x: Tensor) -> Tensor:
    """Return sign(x) log(1 + |x|) (Hafner et al. 2023)."""
    return torch.sign(x) * torch.log1p(x.abs())
