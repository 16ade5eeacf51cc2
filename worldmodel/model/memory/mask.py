"""Who sees whom: causal, of the same episode, and valid."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask


def visible(episode: Tensor, valid: Tensor, queries: int | None = None) -> Tensor:
    """episode (B, L), valid (B, L) -> (B, Q, L) bool: may query row q, one of the last Q (default L), see row k?"""
    rows = episode.shape[1]
    queries = rows if queries is None else queries
    same = episode[:, rows - queries :, None] == episode[:, None]  # (B, Q, L)
    see = same & valid[:, None]
    return see.tril(rows - queries) if queries > 1 else see  # after the last row there is none to hide


def additive(see: Tensor) -> Tensor:
    """(B, Q, L) of `visible` -> (B, 1, Q, L) float32 to add to attention scores: 0 or -inf.

    A row that sees nothing, since it is not valid, is shown itself: a softmax over nothing is NaN on some devices.
    Nothing else changes, because no row sees that row.
    """
    mask = torch.where(see, 0.0, -torch.inf)
    mask.diagonal(see.shape[2] - see.shape[1], 1, 2).zero_()
    return mask[:, None]


def positions(see: Tensor) -> Tensor:
    """(B, Q, L) of `visible` -> (B, Q) int64: how many rows of its episode each row has before it in the window."""
    return (see.sum(2) - 1).clamp(min=0)


def block_mask(episode: Tensor, valid: Tensor) -> BlockMask:
    """The same rule for flex attention, which skips the blocks where nobody sees anybody: episode, valid (B, L)."""
    batch, rows = episode.shape

    def sees(b: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return ((k <= q) & (episode[b, q] == episode[b, k]) & valid[b, k]) | (q == k)

    return create_block_mask(sees, batch, None, rows, rows, device=episode.device)
