"""Attention masks: causal, within an episode, valid rows only."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask


def visible(episode: Tensor, valid: Tensor, queries: int | None = None) -> Tensor:
    """Return whether query row q, one of the last Q (default L), may attend to row k: (B, Q, L) bool.

    Arguments: episode (B, L), valid (B, L).
    """
    rows = episode.shape[1]
    queries = rows if queries is None else queries
    same = episode[:, rows - queries :, None] == episode[:, None]  # (B, Q, L)
    see = same & valid[:, None]
    return see.tril(rows - queries) if queries > 1 else see  # no row follows the last one


def additive(see: Tensor) -> Tensor:
    """Convert (B, Q, L) of `visible` to (B, 1, Q, L) float32 for addition to attention scores: 0 or -inf.

    A row that is not valid may attend to no row. It attends to itself, because a softmax over nothing is NaN on some
    devices. Other rows are unaffected, because none attends to it.
    """
    mask = torch.where(see, 0.0, -torch.inf)
    mask.diagonal(see.shape[2] - see.shape[1], 1, 2).zero_()
    return mask[:, None]


def positions(see: Tensor) -> Tensor:
    """Return each row's index in its episode within the window: (B, Q, L) of `visible` -> (B, Q) int64."""
    return (see.sum(2) - 1).clamp(min=0)


def block_mask(episode: Tensor, valid: Tensor) -> BlockMask:
    """Return the mask of `visible` for flex attention, which skips fully masked blocks: episode, valid (B, L)."""
    batch, rows = episode.shape

    def sees(b: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return ((k <= q) & (episode[b, q] == episode[b, k]) & valid[b, k]) | (q == k)

    return create_block_mask(sees, batch, None, rows, rows, device=episode.device)
