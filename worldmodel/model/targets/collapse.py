"""Measures of collapse of the latent space."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def latent_std(y: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over dimensions of the standard deviation over rows, a scalar: y (*lead, *shape), mask (*lead).

    0 for a collapsed space; nan with fewer than two rows.
    """
    rows = _rows(y, mask)
    return rows.std(0).mean() if len(rows) > 1 else rows.new_tensor(torch.nan)


@torch.no_grad()
def effective_rank(y: Tensor, mask: Tensor, limit: int = 512) -> Tensor:
    """Return the effective rank of the centred rows, a scalar: y (*lead, *shape), mask (*lead).

    RankMe (Garrido et al. 2023) is the exponential of the entropy of the normalised singular values: k for a space that
    is isotropic in k dimensions, 1 for a collapsed one, nan with fewer than two rows. Of more than `limit` rows,
    `limit` equidistant ones are used.
    """
    rows = _rows(y, mask)
    if len(rows) < 2:
        return rows.new_tensor(torch.nan)
    if len(rows) > limit:
        rows = rows[torch.linspace(0, len(rows) - 1, limit, device=rows.device).long()]
    centred = rows - rows.mean(0)
    # rounding gives a constant a spread of this order
    floor = torch.finfo(rows.dtype).eps * rows.abs().max() * len(rows)
    if centred.abs().max() <= floor:
        return rows.new_tensor(1.0)
    values = torch.linalg.svdvals(centred)
    share = values / values.sum()
    return torch.exp(torch.special.entr(share).sum())


def _rows(y: Tensor, mask: Tensor) -> Tensor:
    return y.flatten(0, mask.ndim - 1)[mask.flatten()].flatten(1).float()
