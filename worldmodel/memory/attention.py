"""Causal self-attention over whole windows, and over a cache that grows by a row a step."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from worldmodel.memory.linear import Linear, shrink


def rotations(rows: int, head_dim: int, device: torch.device) -> Tensor:
    """Rotary positions (Su et al. 2021) of the rows of a window: complex64 (rows, head_dim / 2) of modulus 1."""
    speed = 10000 ** (-torch.arange(0, head_dim, 2, device=device) / head_dim)
    angle = torch.outer(torch.arange(rows, device=device, dtype=torch.float32), speed)
    return torch.polar(torch.ones_like(angle), angle)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn each pair of neighbours in x (*lead, head_dim) by `rotation`, broadcastable to (*lead, head_dim / 2)."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))  # one pass over memory, unlike the real formula
    return torch.view_as_real(pairs * rotation).flatten(-2).to(x.dtype)


@cache
def compiled_flex() -> object:
    """Flex attention is only fast when compiled; once a process."""
    return torch.compile(flex_attention)


class Attention(nn.Module):
    """A pre-norm residual block: x + W_o attention(norm(x)). Queries and keys are rotated where a rotation is given."""

    def __init__(self, dim: int, heads: int, dropout: float = 0.0, branches: int = 1):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm = nn.LayerNorm(dim, bias=False)
        self.qkv, self.out = Linear(dim, 3 * dim), Linear(dim, dim)
        shrink(self.out, branches)

    def project(self, x: Tensor, rotation: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """x (*lead, D) -> q, k, v (*lead, heads, head_dim).

        The rotation must broadcast to (*lead, 2, heads, head_dim / 2).
        """
        qkv = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1))
        if rotation is None:
            return qkv.unbind(-3)
        qk, v = qkv.split((2, 1), -3)  # not slices: their gradients would each be padded with zeros and added
        q, k = rotate(qk, rotation).unbind(-3)
        return q, k, v.squeeze(-3)

    def forward(self, x: Tensor, rotation: Tensor | None, mask: Tensor | BlockMask) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, L, D) -> x (B, L, D), and the keys and values (B, heads, L, head_dim) of its rows."""
        q, k, v = (part.transpose(1, 2) for part in self.project(x, rotation))  # (B, heads, L, head_dim)
        if isinstance(mask, BlockMask):
            y = compiled_flex()(q, k, v, block_mask=mask)
        else:
            y = F.scaled_dot_product_attention(q, k, v, mask.to(q.dtype))
        return self.add(x, y.transpose(1, 2).flatten(2)), k, v

    def step(self, x: Tensor, rotation: Tensor | None, mask: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """The newest row x (N, D) against all rows so far, which end with its own.

        Its key and value are written to the last column of `keys` (N * heads, head_dim, rows) and the last row of
        `values` (N * heads, rows, head_dim); mask (N * heads, 1, rows).
        """
        q, k, v = (part.reshape(-1, part.shape[-1]) for part in self.project(x, rotation))  # (N * heads, head_dim)
        keys[:, :, -1] = k
        values[:, -1] = v
        # Two batched products are faster for a single query than the fused kernel, and keys lie in the order they read.
        scores = torch.baddbmm(mask, q[:, None], keys, alpha=q.shape[-1] ** -0.5)
        y = torch.bmm(scores.softmax(-1).to(values.dtype), values)
        return self.add(x, y.view(x.shape))

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """The residual connection."""
        return x + F.dropout(self.out(y), self.dropout, self.training)
