"""Content of the memory: the past, and the coming change."""

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
    """Return pairs (h[t], z[t - lag]) of one episode and the episode's number: (M, D), (M, ...), (M,).

    Args:
        h: (N, R, D).
        z: (N, R, ...).
        episode: (N, R) numbers that differ between streams.
        lag: in steps.
        least: steps since the first row of the stream and of the episode, at least. None: `lag`.

    Raises:
        ValueError: for a lag of at least R.
    """
    far = lag if least is None else max(lag, least)
    rows = h.shape[1]
    if far >= rows:
        raise ValueError(f"lag={far}: allowed are 0 to {rows - 1}, less than the rows of a stream")
    same = episode[:, far:] == episode[:, : rows - far]
    return h[:, far:][same], z[:, far - lag : rows - lag][same], episode[:, far:][same]


def memory_horizon(
    h: Tensor, z: Tensor, episode: Tensor, lags: Sequence[int], *, kind: Kind = "linear", seed: int = 0
) -> dict[int, Score]:
    """Score the prediction of z[t - k] from h[t] for each lag k: held-out R² (accuracy for labels), and a control.

    All lags share the rows that have the longest lag before them, so that the sample is the same along the curve. This
    is the linear memory function of Jaeger (2001, "Short term memory in echo state networks"); for z = AR(1) with
    coefficient rho and h = z it is rho^2k.
    """
    return {k: probe(*lagged(h, z, episode, k, least=max(lags)), kind, seed=seed) for k in lags}


def recent(z: Tensor, lags: Sequence[int]) -> Tensor:
    """Window of z at these lags, side by side: (N, R, ...) -> (N, R, len(lags) D).

    It is zero before the beginning of the stream. The caller excludes rows whose window reaches into another episode.
    """
    flat = z.flatten(2)
    shifted = [torch.cat([flat.new_zeros(len(flat), k, flat.shape[2]), flat[:, : flat.shape[1] - k]], 1) for k in lags]
    return torch.cat(shifted, 2)


@dataclass
class Partition:
    """Shares of the variance of h that linear maps explain on held-out episodes."""

    past: float  # from the past
    change: float  # from the coming delta
    both: float  # from both together
    control: float  # from both with shuffled rows: 0 up to chance

    @property
    def past_only(self) -> float:
        """Share explained by the past and not by the change."""
        return self.both - self.change

    @property
    def change_only(self) -> float:
        """Share explained by the change and not by the past."""
        return self.both - self.past

    @property
    def shared(self) -> float:
        """Share explained by either; negative where each adds to the other."""
        return self.past + self.change - self.both


def past_and_change(h: Tensor, past: Tensor, change: Tensor, groups: Tensor, *, seed: int = 0) -> Partition:
    """Partition the variance of h (M, D) by a summary of the past (M, P) and the coming change (M, E).

    Commonality analysis (Borcard et al. 1992). groups (M,) names episodes. R² is held out, so that more regressors do
    not raise it by themselves, and pooled over the dimensions of h.
    """
    test = held_out(groups, seed=seed)
    order = torch.randperm(len(h), generator=torch.Generator().manual_seed(seed)).to(h.device)
    middle = h[~test].double().mean(0)
    both = torch.cat([past.double(), change.double()], 1)

    def explained(x: Tensor) -> float:
        return r_squared(h[test], ridge(x[~test], h[~test])(x[test]), middle)

    return Partition(*(explained(x) for x in (past, change, both, both[order])))


def horizon_figure(curves: dict[str, dict[int, Score]]) -> Figure:
    """Draw scores by lag, a line for each curve, the shuffled controls dotted."""
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
