"""Advantages and returns, with separate treatment of termination and truncation."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.distributed import sum_over_ranks


@torch.no_grad()
def gae(
    rew: Tensor,
    value: Tensor,
    end: Tensor,
    trunc: Tensor,
    mask: Tensor,
    *,
    gamma: float,
    lam: float,
    episodic: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return generalised advantage estimates and lambda-returns, each (B, T) (Schulman et al. 2016, arXiv 1506.02438).

    The value after a termination is 0. A truncation bootstraps from the value of the true terminal observation, which
    is in the next row.

    Args:
        rew: rewards (B, T).
        value: values (B, T+1).
        end: terminations (B, T) bool.
        trunc: truncations (B, T) bool.
        mask: real transitions (B, T) bool; the advantage of the other rows (terminal observations) is 0.
        gamma: discount.
        lam: lambda.
        episodic: False continues value and advantage across resets, past the masked rows.
    """
    steps = rew.shape[1]
    adv = torch.zeros_like(rew)
    next_adv = torch.zeros_like(rew[:, 0])
    next_value = value[:, -1]
    alive = 1.0 - end.to(rew.dtype)
    goes_on = alive * (1.0 - trunc.to(rew.dtype))
    real = mask.to(rew.dtype)
    for t in range(steps - 1, -1, -1):
        m = real[:, t]
        if episodic:
            error = rew[:, t] + gamma * alive[:, t] * next_value - value[:, t]
            next_adv = m * (error + gamma * lam * goes_on[:, t] * next_adv)
            next_value = value[:, t]
        else:
            error = rew[:, t] + gamma * next_value - value[:, t]
            next_adv = torch.where(mask[:, t], error + gamma * lam * next_adv, next_adv)
            next_value = torch.where(mask[:, t], value[:, t], next_value)
        adv[:, t] = m * next_adv
    return adv, adv + value[:, :-1]


def discounted_returns(rew: Tensor, end: Tensor, trunc: Tensor, mask: Tensor, *, gamma: float) -> Tensor:
    """Return the discounted sums (B, T) of the rewards up to the end of the episode or of the rollout; see `gae`."""
    value = rew.new_zeros(len(rew), rew.shape[1] + 1)
    return gae(rew, value, end, trunc, mask, gamma=gamma, lam=1.0)[1]


@torch.no_grad()
def explained_variance(value: Tensor, ret: Tensor, mask: Tensor) -> Tensor:
    """Return 1 - Var(ret - value) / Var(ret) over the real steps of all ranks, a scalar; nan for a constant return.

    Args:
        value: predicted values (B, T).
        ret: returns (B, T).
        mask: real steps (B, T) bool.
    """
    real = mask.double()
    both = torch.where(mask, torch.stack([ret, ret - value]), 0.0).double()  # (2, B, T)
    sums = sum_over_ranks(torch.cat([both.sum((1, 2)), real.sum()[None]]))
    mean = (sums[:2] / sums[2].clamp_min(1.0))[:, None, None]
    var = sum_over_ranks((real * (both - mean).square()).sum((1, 2)))
    return torch.where(var[0] > 0, 1 - var[1] / var[0], torch.nan)
