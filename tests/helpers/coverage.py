"""Rollouts with visited places, by hand."""

from __future__ import annotations

import torch

from worldmodel.types import Rollout


def rollout(place: list[list[int]], over: list[list[int]]) -> Rollout:
    """place (N, T+1), over (N, T)."""
    info = {"place": torch.tensor(place)[..., None]}
    count, new = len(over), len(over[0])
    end = torch.zeros(count, new + 1, dtype=torch.bool)
    end[:, :-1] = torch.tensor(over).bool()
    rows = dict.fromkeys(("obs", "act", "episode", "valid", "mask", "rew_ext"), torch.zeros(count, new + 1))
    return Rollout(**rows, end=end, trunc=torch.zeros_like(end), logp=torch.zeros(count, new), info=info)
