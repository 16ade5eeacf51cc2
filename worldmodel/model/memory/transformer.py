"""Transformer over the rows of a window, with a key-value cache for acting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask

from worldmodel.errors import check_choice
from worldmodel.model.memory.attention import Attention, rotations
from worldmodel.model.memory.base import Memory, Rows, check_capacity, check_positive, compute_dtype
from worldmodel.model.memory.mask import additive, block_mask, positions, visible
from worldmodel.model.memory.mlp import Feedforward


@dataclass
class Cache(Rows):
    """Keys and values of all rows so far, allocated once and written in place."""

    keys: Tensor = field(init=False)  # (depth, N * kv_heads, head_dim, capacity)
    values: Tensor = field(init=False)  # (depth, N * kv_heads, capacity, head_dim)
    rotation: Tensor | None = None  # (capacity, head_dim / 2) complex


class Transformer(Memory[Cache]):
    """Causal pre-norm blocks (Radford et al. 2019) without biases, masked to the valid rows of each row's episode.

    kv_heads: number of keys and values that the `heads` queries share. One (Shazeer 2019) makes a cached step cheap,
        because reading the cache is the main cost of a long context. kv_heads=heads is ordinary attention.
    position: `rope` counts the rows of the window, and only differences matter. `learned` adds an embedding of the
        row's index in its episode within the window, up to `max_length`. Neither depends on padding or other episodes.
    attention: `sdpa`, or `flex` on CUDA, where long windows of short episodes gain from skipped blocks.

    Raises ValueError for sizes that do not divide and for unknown options.
    """

    def __init__(
        self,
        dim: int = 128,
        depth: int = 2,
        heads: int = 4,
        kv_heads: int = 1,
        mlp_ratio: int = 4,
        activation: str = "gelu",
        position: Literal["rope", "learned"] = "rope",
        max_length: int = 1024,
        attention: Literal["sdpa", "flex"] = "sdpa",
        dropout: float = 0.0,
    ):
        super().__init__()
        check_positive(dim=dim, depth=depth, heads=heads, kv_heads=kv_heads, max_length=max_length)
        if dim % heads:
            raise ValueError(f"memory.heads={heads}: allowed are divisors of memory.dim={dim}")
        if heads % kv_heads:
            raise ValueError(f"memory.kv_heads={kv_heads}: allowed are divisors of memory.heads={heads}")
        check_choice("memory.position", position, ("rope", "learned"))
        if position == "rope" and dim // heads % 2:
            raise ValueError(f"memory.heads={heads}: allowed with rope are heads of even width, not {dim // heads}")
        check_choice("memory.attention", attention, ("sdpa", "flex"))
        if attention == "flex" and dim // heads < 16:
            raise ValueError(f"memory.heads={heads}: allowed with flex are heads of 16 or wider, not {dim // heads}")
        self.dim, self.depth, self.kv_heads, self.head_dim = dim, depth, kv_heads, dim // heads
        self.attention, self.max_length = attention, max_length
        self.place = nn.Embedding(max_length, dim) if position == "learned" else None
        self.attentions = nn.ModuleList(Attention(dim, heads, kv_heads, dropout, 2 * depth) for _ in range(depth))
        self.feedforwards = nn.ModuleList(
            Feedforward(dim, mlp_ratio, activation, dropout, 2 * depth) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, bias=False)
        if self.place is not None:
            nn.init.normal_(self.place.weight, std=0.02)

    def layers(self, x: Tensor, episode: Tensor, valid: Tensor) -> list[Tensor]:
        """See `Memory.layers`."""
        return self._encode(x, episode, valid, None)

    @torch.no_grad()
    def prefill(self, x: Tensor, episode: Tensor, valid: Tensor, capacity: int) -> tuple[Tensor, Cache]:
        """See `Memory.prefill`."""
        n, rows, _ = x.shape
        check_capacity(rows, capacity)
        state = Cache(capacity)
        state.fill(episode, valid)
        dtype, batch = compute_dtype(x), n * self.kv_heads
        state.keys = torch.empty(self.depth, batch, self.head_dim, capacity, dtype=dtype, device=x.device)
        state.values = torch.empty(self.depth, batch, capacity, self.head_dim, dtype=dtype, device=x.device)
        state.rotation = self._rotation(capacity, x.device)
        return (self._encode(x, episode, valid, state)[-1] if rows else x), state

    @torch.no_grad()
    def step(self, x: Tensor, episode: Tensor, valid: Tensor, state: Cache) -> Tensor:
        """See `Memory.step`."""
        t = state.append(episode, valid)
        rows = t + 1
        see = visible(state.episode[:, :rows], state.valid[:, :rows], queries=1)  # (N, 1, rows)
        mask = additive(see).expand(-1, self.kv_heads, -1, -1).reshape(-1, 1, rows).to(state.keys.dtype)
        rotation = None if state.rotation is None else state.rotation[t]
        x = self._placed(x[:, None], see)[:, 0]
        keys, values = state.keys[..., :rows], state.values[:, :, :rows]
        for i, (attention, feedforward) in enumerate(self._blocks()):
            x = feedforward(attention.step(x, rotation, mask, keys[i], values[i]))
        return self.norm(x)

    def _blocks(self) -> Iterator[tuple[Attention, Feedforward]]:
        pairs = zip(self.attentions, self.feedforwards, strict=True)
        return cast(Iterator[tuple[Attention, Feedforward]], pairs)

    def _encode(self, x: Tensor, episode: Tensor, valid: Tensor, state: Cache | None) -> list[Tensor]:
        """Return the activations after each block; if `state` is given, store keys and values in it."""
        batch, rows, _ = x.shape
        see = visible(episode, valid)
        x = self._placed(x, see)
        mask = self._mask(see, episode, valid)
        rotation = self._rotation(rows, x.device)
        if rotation is not None:
            rotation = rotation[:, None]  # (L, 1, head_dim / 2), for (B, L, heads, head_dim / 2)
        out = []
        for i, (attention, feedforward) in enumerate(self._blocks()):
            x, k, v = attention(x, rotation, mask)
            out.append(x := feedforward(x))
            if state is not None:
                keys = rearrange(state.keys[i], "(b kv) d rows -> b kv d rows", b=batch)  # views of the cache
                values = rearrange(state.values[i], "(b kv) rows d -> b kv rows d", b=batch)
                keys[..., :rows] = rearrange(k, "b kv rows d -> b kv d rows")
                values[:, :, :rows] = v
        return [*out[:-1], self.norm(x)]

    def _mask(self, see: Tensor, episode: Tensor, valid: Tensor) -> Tensor | BlockMask:
        if self.attention == "sdpa":
            return additive(see)
        if see.device.type != "cuda":
            raise ValueError(f"memory.attention=flex on {see.device.type}: allowed is cuda; use sdpa")
        return block_mask(episode, valid)

    def _rotation(self, rows: int, device: torch.device) -> Tensor | None:
        return rotations(rows, self.head_dim, device) if self.place is None else None

    def _placed(self, x: Tensor, see: Tensor) -> Tensor:
        """Add the embedding of each row's index in its episode to x (B, Q, D), if positions are learned."""
        if self.place is None:
            return x
        if see.shape[2] > self.max_length:
            raise ValueError(f"memory.max_length={self.max_length}: allowed are at least the {see.shape[2]} rows seen")
        return x + self.place(positions(see))
