"""Unit of the extrinsic return, so that no reward's unit decides how fast the policy learns."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.curiosity.base import PerEnvState
from worldmodel.errors import check_range
from worldmodel.running_stats import RunningMeanStd

LEAST_SPREAD = 1e-3  # of the return, relative to its mean; a constant return would otherwise have the unit 0


class ReturnScale(PerEnvState):
    """Running standard deviation of the discounted extrinsic return, by which extrinsic rewards are divided.

    The return of a step is the discounted sum of the rewards of its episode so far, as in `VecNormalize` of
    Stable-Baselines3. The statistics cover all real steps of all ranks. The standard deviation has no lower bound other
    than a thousandth of the mean, so that rewards multiplied by any factor give the same scaled rewards.

    Until the first reward other than 0 the scale is 1. The values of the critic have no unit until then.

    Args:
        num_envs: environments of this rank, N.
        normalise: False keeps rewards as they are.
        clip: bound of a scaled reward's absolute value; None: no bound.
        horizon: steps that the running statistics cover.

    Raises:
        SettingError: for values out of range.
    """

    std: Tensor  # scalar; 0 until the first reward other than 0
    sum: Tensor  # (N,) discounted sum of the rewards of each running episode

    def __init__(self, num_envs: int, *, normalise: bool = True, clip: float | None = 10.0, horizon: float = 1e6):
        super().__init__()
        check_range("policy.return_scale.clip", clip, "(0, inf)", null=True)
        check_range("policy.return_scale.horizon", horizon, "[1, inf)")
        self.normalise, self.clip = normalise, clip
        self.moments = RunningMeanStd(horizon=horizon)
        self.register_buffer("std", torch.zeros(()))
        self.register_buffer("sum", torch.zeros(num_envs))

    @property
    def scale(self) -> Tensor:
        """Extrinsic reward of size 1 in scaled units, a scalar."""
        return torch.where(self.std > 0, self.std, 1.0)

    def reset(self, num_envs: int) -> None:
        """See `PerEnvState.reset`."""
        self.sum = self.sum.new_zeros(num_envs)

    @torch.no_grad()
    def update(self, rew: Tensor, over: Tensor, mask: Tensor, gamma: float) -> Tensor:
        """Add a rollout to the statistics; return the old scale divided by the new one, a scalar.

        A value in scaled units stays the same in units of the reward if it is multiplied by that ratio. The ratio is 1
        where the scale becomes known, because values had no unit before.

        Args:
            rew: rewards (N, T).
            over: last steps of episodes (N, T) bool.
            mask: real steps (N, T) bool. The row after a last step is not real.
            gamma: discount.
        """
        old = self.std.clone()
        if not self.normalise:
            return torch.ones_like(old)
        rew = torch.where(mask, rew, 0.0)
        keep = torch.where(mask, gamma, 0.0)  # a masked row begins an episode
        sums, total = torch.empty_like(rew), self.sum
        for t in range(rew.shape[1]):
            total = torch.addcmul(rew[:, t], keep[:, t], total)
            sums[:, t] = total
        self.sum = torch.where(over[:, -1], 0.0, total)
        self.moments.update(sums, mask)
        new = torch.maximum(self.moments.var.sqrt(), LEAST_SPREAD * self.moments.mean.abs())
        seen = (self.moments.count > 0) & (new > 0)
        self.std.copy_(torch.where(seen, new, old))
        return torch.where(old > 0, old / self.scale, 1.0)

    def forward(self, rew: Tensor) -> Tensor:
        """Return rewards of any shape in scaled units, clipped, with the current statistics."""
        if not self.normalise:
            return rew
        rew = rew / self.scale
        return rew if self.clip is None else rew.clamp(-self.clip, self.clip)
