"""Causal self-attention over whole windows, and over a cache that grows by one row per step."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import cast

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from worldmodel.model.memory.linear import Linear, drop, shrink


def rotations(rows: int, head_dim: int, device: torch.device) -> Tensor:
    """Return the rotary positions of the rows of a window: complex64 (rows, head_dim / 2) of modulus 1.

    Source: Su et al. 2021.
    """
    speed = 10000 ** (-torch.arange(0, head_dim, 2, device=device) / head_dim)
    angle = torch.outer(torch.arange(rows, device=device, dtype=torch.float32), speed)
    return torch.polar(torch.ones_like(angle), angle)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotate each pair of neighbours in x (*lead, head_dim) by `rotation`, broadcast to (*lead, head_dim / 2)."""
    if torch.compiler.is_compiling():  # the compiler fuses the real formula, and cannot generate complex code
        (a, b), (cos, sin) = x.float().unflatten(-1, (-1, 2)).unbind(-1), torch.view_as_real(rotation).unbind(-1)
        return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2).to(x.dtype)
    # A complex product reads and writes memory once; the real formula does so four times.
    pairs = torch.view_as_complex(x.float().view(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * rotation).view(x.shape).to(x.dtype)


@cache
def compiled_flex() -> Callable[..., Tensor]:
    """Return compiled flex attention, which is slow without compilation; compiled once per process."""
    return torch.compile(flex_attention)


class Attention(nn.Module):
    """Pre-norm residual block x + W_o attention(norm(x)), initialised as one of `branches`.

    `heads` queries share `kv_heads` keys and values (Ainslie et al. 2023). If a rotation is given, queries and keys are
    rotated by that of their row.
    """

    def __init__(self, dim: int, heads: int, kv_heads: int, dropout: float = 0.0, branches: int = 1):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim, self.dropout = heads, kv_heads, dim // heads, dropout
        self.norm = nn.LayerNorm(dim, bias=False)
        self.qkv = Linear(dim, (heads + 2 * kv_heads) * self.head_dim)
        self.out = Linear(dim, dim)
        shrink(self.out, branches)

    def project(self, x: Tensor, rotation: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Project x (*lead, D) to q (*lead, heads, head_dim), k and v (*lead, kv_heads, head_dim)."""
        qkv = self.qkv(self.norm(x)).view(*x.shape[:-1], -1, self.head_dim)
        if rotation is None:
            return qkv.split((self.heads, self.kv_heads, self.kv_heads), -2)
        # split, not slices: each slice's gradient would be padded with zeros and added to the others
        qk, v = qkv.split((self.heads + self.kv_heads, self.kv_heads), -2)
        q, k = rotate(qk, rotation).split((self.heads, self.kv_heads), -2)
        return q, k, v

    def forward(self, x: Tensor, rotation: Tensor | None, mask: Tensor | BlockMask) -> tuple[Tensor, Tensor, Tensor]:
        """Return x (B, L, D), and the keys and values (B, kv_heads, L, head_dim) of its rows, for x (B, L, D)."""
        q, k, v = (rearrange(part, "b l heads d -> b heads l d") for part in self.project(x, rotation))
        shared = self.kv_heads < self.heads
        if isinstance(mask, BlockMask):
            attend = cast(Callable[..., Tensor], flex_attention) if torch.compiler.is_compiling() else compiled_flex()
            y = attend(q, k, v, block_mask=mask, enable_gqa=shared)
        elif shared and q.device.type == "cuda":  # no CUDA kernel supports both a mask and shared keys
            keys, values = (repeat(part, "b kv l d -> b (kv n) l d", n=self.heads // self.kv_heads) for part in (k, v))
            y = F.scaled_dot_product_attention(q, keys, values, mask.to(q.dtype))
        else:
            y = F.scaled_dot_product_attention(q, k, v, mask.to(q.dtype), enable_gqa=shared)
        return self.add(x, rearrange(y, "b heads l d -> b l (heads d)")), k, v

    def step(self, x: Tensor, rotation: Tensor | None, mask: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend from the newest row x (N, D) to all rows so far, including its own: (N, D).

        Its key and value are written to the last column of `keys` (N * kv_heads, head_dim, rows) and the last row of
        `values` (N * kv_heads, rows, head_dim); mask (N * kv_heads, 1, rows).
        """
        q, k, v = self.project(x, rotation)
        keys[:, :, -1] = k.reshape(-1, self.head_dim)
        values[:, -1] = v.reshape(-1, self.head_dim)
        q = q.reshape(len(keys), -1, self.head_dim)  # (N * kv_heads, queries that share a key, head_dim)
        # With one query per row, two batched products beat the fused kernel. Keys are stored in reading order.
        scores = torch.baddbmm(mask, q, keys, alpha=self.head_dim**-0.5)
        y = torch.bmm(scores.softmax(-1).to(values.dtype), values)
        return self.add(x, y.view(x.shape))

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Add the residual connection: x (*lead, D) + the projection of y (*lead, D)."""
        return x + drop(self.out(y), self.dropout, self.training)
