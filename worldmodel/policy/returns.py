"""Advantages and returns, with termination and truncation kept apart."""

from __future__ import annotations

import torch
from torch import Tensor


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
    """Generalised advantage estimates and lambda-returns (Schulman et al. 2016).

    rew, end, trunc, mask: (B, T); value: (B, T+1) -> advantage (B, T), return (B, T).
    A termination is worth nothing further; a truncation bootstraps from the value of the true terminal observation,
    which stands in the next row. Rows with mask False (that terminal observation) get advantage 0. With
    `episodic=False` the stream is one long life: value and advantage flow through resets, past the masked rows.
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
