"""What every memory can do."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class State:
    """A window that is being lived through: the first `length` of `capacity` rows have happened."""

    capacity: int
    length: int = 0

    def advance(self) -> int:
        """Take the next row of the window and return its index; ValueError when the window is full."""
        if self.length >= self.capacity:
            raise ValueError(f"memory.step: row {self.length}, allowed are rows below capacity={self.capacity}")
        self.length += 1
        return self.length - 1


@dataclass
class Rows(State):
    """A window that remembers which rows belong together."""

    episode: Tensor | None = None  # (N, capacity)
    valid: Tensor | None = None  # (N, capacity)

    def fill(self, episode: Tensor, valid: Tensor) -> None:
        """The first K rows: episode (N, K), valid (N, K)."""
        n, self.length = episode.shape
        self.episode = episode.new_zeros(n, self.capacity)
        self.valid = valid.new_zeros(n, self.capacity)
        self.episode[:, : self.length] = episode
        self.valid[:, : self.length] = valid

    def append(self, episode: Tensor, valid: Tensor) -> int:
        """One row more, episode (N,), valid (N,); returns its index."""
        t = self.advance()
        self.episode[:, t] = episode
        self.valid[:, t] = valid
        return t


class Memory(nn.Module):
    """x -> h, both of width `dim`, where h_t depends on the valid rows of its own episode up to t and on nothing else.

    Learning goes through `forward`; acting encodes the last K rows with `prefill` and then takes one `step` a row.
    Both give the same h. Rows that are not valid have an h that is finite and means nothing.
    """

    dim: int

    def layers(self, x: Tensor, episode: Tensor, valid: Tensor) -> list[Tensor]:
        """x (B, L, D), episode (B, L) int64, valid (B, L) bool -> the activations (B, L, D) after each block.

        The last one is the output of `forward`.
        """
        raise NotImplementedError

    def forward(self, x: Tensor, episode: Tensor, valid: Tensor) -> Tensor:
        """x (B, L, D), episode (B, L) int64, valid (B, L) bool -> h (B, L, D)."""
        return self.layers(x, episode, valid)[-1]

    def prefill(self, x: Tensor, episode: Tensor, valid: Tensor, capacity: int) -> tuple[Tensor, State]:
        """Encode K >= 0 rows: x (N, K, D) -> h (N, K, D) and a state for a window of `capacity` rows in all.

        No gradients. ValueError if the rows are more than `capacity`.
        """
        raise NotImplementedError

    def step(self, x: Tensor, episode: Tensor, valid: Tensor, state: State) -> Tensor:
        """The next row: x (N, D), episode (N,), valid (N,) -> h (N, D); `state` advances in place.

        No gradients. ValueError if the window is full.
        """
        raise NotImplementedError


def check_capacity(rows: int, capacity: int) -> None:
    """ValueError unless `rows` fit in a window of `capacity`."""
    if rows > capacity:
        raise ValueError(f"memory.prefill: {rows} rows, allowed are at most capacity={capacity}")


def check_positive(**sizes: int) -> None:
    """ValueError for the first of the named sizes that is not a positive whole number."""
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"memory.{name}={size}: allowed are whole numbers from 1")


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which matrix products of `x` come out, autocast or not."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
