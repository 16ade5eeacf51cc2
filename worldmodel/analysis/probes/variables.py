"""What there is to read off an agent's activations: its past, its place, and the change to come."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.analysis.probes.activations import Activations
from worldmodel.analysis.probes.memory import recent


def settled(seen: Activations, steps: int) -> Tensor:
    """(N, R) bool: real transitions whose memory could see so many `steps` of their episode before them. The memory
    holds on to actions and latents of before in the rows that are left."""
    return seen.mask & (seen.context >= steps)


def variables(seen: Activations, rows: Tensor, lags: tuple[int, ...] = (1, 4, 16)) -> dict[str, Tensor]:
    """Variables by name, at `rows` (N, R), which must have max(lags) rows of their episode before them: (M,) or (M, E)
    each, float for regression, int64 for classification.

    latent now; latent and action so many steps ago; the coming delta of the target latent; where the environment tells
    it, the place.
    """
    found = {"latent now": seen.z.flatten(2)[rows]}
    for lag in lags:
        found[f"latent {lag} ago"] = recent(seen.z, [lag])[rows]
    if not seen.act.is_floating_point():
        acts = seen.act.flatten(2) if seen.act.ndim > 2 else seen.act[..., None]
        for lag in lags:
            found[f"action {lag} ago"] = torch.roll(acts, lag, 1)[rows][:, 0].long()
    if "place" in seen.info:
        found["place"] = seen.info["place"][rows].float()
    return found | {"coming delta": seen.delta.flatten(2)[rows]}
