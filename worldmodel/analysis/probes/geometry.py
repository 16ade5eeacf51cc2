"""Geometry of activations: the dimension of a cloud, and the similarity of two clouds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from worldmodel.model.targets.collapse import effective_rank

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def participation_ratio(x: Tensor) -> float:
    """(sum of eigenvalues)² / sum of their squares, of the covariance of x (M, D), 1 to D (Gao et al. 2017).

    It is k for a cloud that is isotropic in k dimensions, nan for a point.
    """
    centred = (x.flatten(1) - x.flatten(1).mean(0)).double()
    covariance = centred.T @ centred
    return float(covariance.trace().square() / covariance.square().sum())


def rank_me(x: Tensor, limit: int = 4096) -> float:
    """RankMe (Garrido et al. 2023) of the centred rows of x (M, D), 1 to min(M, D).

    It is exp of the entropy of the normalised singular values. Of more rows, `limit` are taken at even distances.
    """
    return float(effective_rank(x, torch.ones(len(x), dtype=torch.bool, device=x.device), limit))


def two_nn(x: Tensor, discard: float = 0.1) -> float:
    """Intrinsic dimension by the ratio mu of the distances to the second and first neighbour (Facco et al. 2017).

    It is the slope through 0 of -log(1 - F(mu)) against log mu, without the `discard` share of the largest ratios.
    Equal rows of x (M, D) count once. The density is assumed to be flat at the scale of two neighbours.
    """
    r = neighbour_distances(_distinct(x, 3), 2)
    mu = torch.log(r[:, 1] / r[:, 0]).sort().values
    kept = mu[: int(len(mu) * (1 - discard))]
    cumulative = torch.arange(1, len(kept) + 1, dtype=mu.dtype, device=mu.device) / len(mu)
    return float((kept * -torch.log1p(-cumulative)).sum() / kept.square().sum())


def mle_dimension(x: Tensor, neighbours: int = 20) -> float:
    """Intrinsic dimension by maximum likelihood over `neighbours` (Levina & Bickel 2004).

    Inverses are averaged over points (MacKay & Ghahramani 2005), with k - 2 for the unbiased estimate. Equal rows of
    x (M, D) count once. High dimensions are underestimated, since neighbours lie at the rim of the cloud.
    """
    if neighbours < 3:
        raise ValueError(f"neighbours={neighbours}: allowed are whole numbers from 3")
    r = neighbour_distances(_distinct(x, neighbours + 1), neighbours)
    logs = torch.log(r[:, -1:] / r[:, :-1]).sum(1)
    return float((neighbours - 2) / logs.mean())


def neighbour_distances(x: Tensor, neighbours: int, block: int = 1024) -> Tensor:
    """Distances (M, neighbours) float64 from each row of x (M, D) to its nearest others, ascending."""
    x, found = x.double(), []
    for start in range(0, len(x), block):
        part = torch.cdist(x[start : start + block], x, compute_mode="donot_use_mm_for_euclid_dist")
        part[torch.arange(len(part)), start + torch.arange(len(part))] = torch.inf
        found.append(part.topk(neighbours, largest=False).values)
    return torch.cat(found)


def cka(x: Tensor, y: Tensor) -> float:
    """Debiased linear centred kernel alignment of x (M, D) and y (M, E), whose rows belong to the same inputs.

    It is 1 for rotated, scaled or shifted copies, and 0 on average for independent clouds (Kornblith et al. 2019; HSIC
    without bias, Song et al. 2012). The biased estimate grows towards 1 with D / M.

    Raises:
        ValueError: for unequal M, or M below 4.
    """
    x, y = (a.flatten(1).double() for a in (x, y))
    if len(x) != len(y) or len(x) < 4:
        raise ValueError(f"cka of {len(x)} and {len(y)} rows: allowed are equal numbers from 4")
    x, y = x - x.mean(0), y - y.mean(0)
    cross, own_x, own_y = _hsic(x, y), _hsic(x, x), _hsic(y, y)
    return float(cross / (own_x * own_y).clamp_min(1e-300).sqrt())


def cka_table(clouds: Mapping[str, Tensor]) -> tuple[list[str], Tensor]:
    """Names, and CKA (n, n) between each two clouds of the same M inputs (layers, checkpoints, seeds)."""
    names = list(clouds)
    table = torch.eye(len(names))
    for i, a in enumerate(names):
        for j in range(i):
            table[i, j] = table[j, i] = cka(clouds[a], clouds[names[j]])
    return names, table


def cka_figure(names: list[str], table: Tensor) -> Figure:
    """Draw the table as a heat map."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.6 + 0.6 * len(names), 1 + 0.6 * len(names)), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(table.cpu().numpy(), vmin=0, vmax=1, cmap="magma")
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axis.set_yticks(range(len(names)), names)
    figure.colorbar(image, label="CKA (debiased, linear)")
    return figure


def _hsic(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased estimate of HSIC with linear kernels, from features and without the (M, M) kernels.

    With K and L the kernels without their diagonals: (tr KL + 1'K1 1'L1 / ((n-1)(n-2)) - 2 1'KL1 / (n-2)) / (n(n-3)).
    For centred features, the rows of K sum to minus its diagonal.
    """
    n = len(x)
    kx, ky = x.square().sum(1), y.square().sum(1)  # the diagonals
    trace = (x.T @ y).square().sum() - (kx * ky).sum()
    sums = kx.sum() * ky.sum() / ((n - 1) * (n - 2))
    return (trace + sums - 2 / (n - 2) * (kx * ky).sum()) / (n * (n - 3))


def _distinct(x: Tensor, least: int) -> Tensor:
    x = x.flatten(1).unique(dim=0)
    if len(x) < least:
        raise ValueError(f"{len(x)} different rows: a dimension needs at least {least}")
    return x
