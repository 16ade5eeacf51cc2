"""Variables of an agent's past, place and coming change, which probes predict from its activations."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.analysis.probes.activations import Activations
from worldmodel.analysis.probes.memory import recent


def settled(seen: Activations, steps: int) -> Tensor:
    """(N, R) bool: real transitions with at least `steps` earlier rows of their episode in the memory's window."""
    return seen.mask & (seen.context >= steps)


def variables(seen: Activations, rows: Tensor, lags: tuple[int, ...] = (1, 4, 16)) -> dict[str, Tensor]:
    """Variables by name at `rows` (N, R): (M,) or (M, E) each, float for regression, int64 for classification.

    They are the present latent, the latent and the action of earlier steps, the coming delta of the target latent and,
    where the environment reports it, the place. The rows have at least max(lags) earlier rows of their episode.
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
