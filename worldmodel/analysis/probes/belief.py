"""Affine map from the memory to the belief of an exact Bayes filter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from worldmodel.analysis.probes.linear import Affine, held_out, r_squared, ridge

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class BeliefFit:
    """An affine map h -> belief, fitted on some episodes and tested on others."""

    r2: float
    r2_shuffled: float  # the same where the rows of the beliefs were permuted first
    rmse: float  # root mean squared error of one entry of the belief
    truth: Tensor  # (M, S) beliefs of the held-out rows
    decoded: Tensor  # (M, S); rows sum to one, but entries may be negative
    map: Affine


def fit_belief(h: Tensor, belief: Tensor, groups: Tensor, *, share: float = 0.3, seed: int = 0) -> BeliefFit:
    """Regress exact beliefs belief (M, S) on h (M, D).

    After Shai et al. (2024), "Transformers represent belief state geometry in their residual stream". groups (M,)
    names episodes, a `share` of which is held out. R² is pooled over states.
    """
    test = held_out(groups, share, seed)
    order = torch.randperm(len(h), generator=torch.Generator().manual_seed(seed)).to(h.device)
    mapping = ridge(h[~test], belief[~test])
    truth, decoded = belief[test].double(), mapping(h[test])
    mixed = belief[order]
    control = ridge(h[~test], mixed[~test])(h[test])
    return BeliefFit(
        r2=r_squared(truth, decoded, belief[~test].double().mean(0)),
        r2_shuffled=r_squared(mixed[test], control, mixed[~test].double().mean(0)),
        rmse=float((truth - decoded).square().mean().sqrt()),
        truth=truth,
        decoded=decoded,
        map=mapping,
    )


def simplex(belief: Tensor) -> Tensor:
    """Points (M, 2) of the triangle (0, 0), (1, 0), (1/2, sqrt(3)/2) for beliefs over three states (M, 3)."""
    if belief.shape[-1] != 3:
        raise ValueError(f"belief over {belief.shape[-1]} states: a simplex in the plane needs 3")
    corners = belief.new_tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]])
    return belief @ corners


def simplex_figure(fit: BeliefFit, limit: int = 20_000) -> Figure:
    """Draw true beliefs beside decoded ones, at most `limit` points. The colour of a point is its true belief."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.8), layout="constrained")
    colours = fit.truth[:limit].clamp(0, 1).cpu().numpy()
    panels = (("exact Bayes filter", fit.truth), (f"decoded from h (R² {fit.r2:.3f})", fit.decoded))
    for axis, (title, belief) in zip(figure.subplots(1, 2), panels, strict=True):
        axis.scatter(*simplex(belief[:limit]).T.cpu().numpy(), c=colours, s=2, lw=0)
        axis.plot([0, 1, 0.5, 0], [0, 0, 0.75**0.5, 0], "k-", lw=0.5)
        axis.set(title=title, xlim=(-0.08, 1.08), ylim=(-0.08, 0.95), aspect="equal")
        axis.axis("off")
    return figure
