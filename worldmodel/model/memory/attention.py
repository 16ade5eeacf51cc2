"""Causal self-attention over whole windows, and over a cache that grows by a row a step."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from worldmodel.model.memory.linear import Linear, drop, shrink


def rotations(rows: int, head_dim: int, device: torch.device) -> Tensor:
    """Rotary positions (Su et al. 2021) of the rows of a window: complex64 (rows, head_dim / 2) of modulus 1."""
    speed = 10000 ** (-torch.arange(0, head_dim, 2, device=device) / head_dim)
    angle = torch.outer(torch.arange(rows, device=device, dtype=torch.float32), speed)
    return torch.polar(torch.ones_like(angle), angle)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn each pair of neighbours in x (*lead, head_dim) by `rotation`, which broadcasts to (*lead, head_dim / 2)."""
    if torch.compiler.is_compiling():  # which fuses the real formula, and can't generate complex code
        (a, b), (cos, sin) = x.float().unflatten(-1, (-1, 2)).unbind(-1), torch.view_as_real(rotation).unbind(-1)
        return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2).to(x.dtype)
    # A complex product reads and writes memory once; the real formula does so four times.
    pairs = torch.view_as_complex(x.float().view(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * rotation).view(x.shape).to(x.dtype)


@cache
def compiled_flex() -> Callable[..., Tensor]:
    """Flex attention is only fast when compiled; once a process."""
    return torch.compile(flex_attention)


class Attention(nn.Module):
    """A pre-norm residual block, x + W_o attention(norm(x)), initialised as one of `branches`.

    `heads` queries share `kv_heads` keys and values (Ainslie et al. 2023). Queries and keys turn by the rotation of
    their row where one is given.
    """

    def __init__(self, dim: int, heads: int, kv_heads: int, dropout: float = 0.0, branches: int = 1):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim, self.dropout = heads, kv_heads, dim // heads, dropout
        self.norm = nn.LayerNorm(dim, bias=False)
        self.qkv = Linear(dim, (heads + 2 * kv_heads) * self.head_dim)
        self.out = Linear(dim, dim)
        shrink(self.out, branches)

    def project(self, x: Tensor, rotation: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """x (*lead, D) -> q (*lead, heads, head_dim), k and v (*lead, kv_heads, head_dim)."""
        qkv = self.qkv(self.norm(x)).view(*x.shape[:-1], -1, self.head_dim)
        if rotation is None:
            return qkv.split((self.heads, self.kv_heads, self.kv_heads), -2)
        # split, not slices: each slice's gradient would be padded with zeros and added to the others
        qk, v = qkv.split((self.heads + self.kv_heads, self.kv_heads), -2)
        q, k = rotate(qk, rotation).split((self.heads, self.kv_heads), -2)
        return q, k, v

    def forward(self, x: Tensor, rotation: Tensor | None, mask: Tensor | BlockMask) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, L, D) -> x (B, L, D), and the keys and values (B, kv_heads, L, head_dim) of its rows."""
        q, k, v = (part.transpose(1, 2) for part in self.project(x, rotation))  # (B, heads, L, head_dim)
        shared = self.kv_heads < self.heads
        if isinstance(mask, BlockMask):
            attend = flex_attention if torch.compiler.is_compiling() else compiled_flex()
            y = attend(q, k, v, block_mask=mask, enable_gqa=shared)
        else:
            if shared and q.device.type == "cuda":  # no CUDA kernel that takes a mask lets heads share keys
                every = [part.repeat_interleave(self.heads // self.kv_heads, 1) for part in (k, v)]
                y = F.scaled_dot_product_attention(q, *every, mask.to(q.dtype))
            else:
                y = F.scaled_dot_product_attention(q, k, v, mask.to(q.dtype), enable_gqa=shared)
        return self.add(x, y.transpose(1, 2).reshape(x.shape)), k, v

    def step(self, x: Tensor, rotation: Tensor | None, mask: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """The newest row x (N, D) against all rows so far, which end with its own.

        Its key and value are written to the last column of `keys` (N * kv_heads, head_dim, rows) and the last row of
        `values` (N * kv_heads, rows, head_dim); mask (N * kv_heads, 1, rows).
        """
        q, k, v = self.project(x, rotation)
        keys[:, :, -1] = k.reshape(-1, self.head_dim)
        values[:, -1] = v.reshape(-1, self.head_dim)
        q = q.reshape(len(keys), -1, self.head_dim)  # (N * kv_heads, queries that share a key, head_dim)
        # For one query a row, two batched products beat the fused kernel; keys lie in the order in which they are read.
        scores = torch.baddbmm(mask, q, keys, alpha=self.head_dim**-0.5)
        y = torch.bmm(scores.softmax(-1).to(values.dtype), values)
        return self.add(x, y.view(x.shape))

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """The residual connection."""
        return x + drop(self.out(y), self.dropout, self.training)
