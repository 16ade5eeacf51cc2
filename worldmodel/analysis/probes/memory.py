"""What the memory holds of the past, and how much of it is about the change to come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from worldmodel.analysis.probes.linear import Kind, Score, held_out, probe, r_squared, ridge

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def lagged(h: Tensor, z: Tensor, episode: Tensor, lag: int, least: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs (h[t], z[t - lag]) of one episode, at least `least` steps (null: `lag`) after the stream's or the episode's
    first: h (N, R, D), z (N, R, ...), episode (N, R), numbers that differ between streams -> (M, D), (M, ...), (M,)."""
    far = lag if least is None else max(lag, least)
    rows = h.shape[1]
    if far >= rows:
        raise ValueError(f"lag={far}: allowed are 0 to {rows - 1}, less than the rows of a stream")
    same = episode[:, far:] == episode[:, : rows - far]
    return h[:, far:][same], z[:, far - lag : rows - lag][same], episode[:, far:][same]


def memory_horizon(
    h: Tensor, z: Tensor, episode: Tensor, lags: Sequence[int], *, kind: Kind = "linear", seed: int = 0
) -> dict[int, Score]:
    """How well z[t - k] is read off h[t], for each lag k: held-out R² (accuracy for labels) beside a shuffled control.

    All lags are scored on the same rows, those that have the longest lag behind them, so that the curve is not one of
    changing samples. This is the linear memory function of Jaeger (2001, "Short term memory in echo state networks");
    for z = AR(1) with coefficient rho and h = z it is rho^2k.
    """
    return {k: probe(*lagged(h, z, episode, k, least=max(lags)), kind, seed=seed) for k in lags}


def recent(z: Tensor, lags: Sequence[int]) -> Tensor:
    """The past as the window of z at these lags, side by side: (N, R, ...) -> (N, R, len(lags) D); zero where the
    stream had not begun. Rows whose window crosses into another episode are for the caller to leave out."""
    flat = z.flatten(2)
    shifted = [torch.cat([flat.new_zeros(len(flat), k, flat.shape[2]), flat[:, : flat.shape[1] - k]], 1) for k in lags]
    return torch.cat(shifted, 2)


@dataclass
class Partition:
    """Shares of the variance of h that linear maps explain on held-out episodes."""

    past: float  # from the past
    change: float  # from the coming delta
    both: float  # from both together
    control: float  # from both, their rows shuffled together: 0 but for chance

    @property
    def past_only(self) -> float:
        """What the change doesn't tell."""
        return self.both - self.change

    @property
    def change_only(self) -> float:
        """What the past doesn't tell."""
        return self.both - self.past

    @property
    def shared(self) -> float:
        """What either tells; below zero where each helps only beside the other."""
        return self.past + self.change - self.both


def past_and_change(h: Tensor, past: Tensor, change: Tensor, groups: Tensor, *, seed: int = 0) -> Partition:
    """Variance partitioning (commonality analysis; Borcard et al. 1992) of h by a summary of the past and the coming
    delta: h (M, D), past (M, P), change (M, E), groups (M,) names episodes.

    R² is held out and pooled over the dimensions of h, so more regressors don't raise it by themselves.
    """
    test = held_out(groups, seed=seed)
    order = torch.randperm(len(h), generator=torch.Generator().manual_seed(seed)).to(h.device)
    middle = h[~test].double().mean(0)
    both = torch.cat([past.double(), change.double()], 1)

    def explained(x: Tensor) -> float:
        return r_squared(h[test], ridge(x[~test], h[~test])(x[test]), middle)

    return Partition(*(explained(x) for x in (past, change, both, both[order])))


def horizon_figure(curves: dict[str, dict[int, Score]]) -> Figure:
    """Score by lag, a line a curve, its shuffled control dotted."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axis = figure.subplots()
    for i, (name, curve) in enumerate(curves.items()):
        axis.plot(list(curve), [s.score for s in curve.values()], f"C{i}o-", ms=3, label=name)
        axis.plot(list(curve), [s.shuffled for s in curve.values()], f"C{i}:", lw=1)
    axis.set(xlabel="lag k (steps)", ylabel="z[t − k] from h[t]", ylim=(-0.1, 1.05))
    axis.legend()
    axis.grid(alpha=0.3)
    return figure
