"""Interface of memories."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from worldmodel.errors import check_range


@dataclass
class State:
    """State of a window while acting: the first `length` of `capacity` rows are filled."""

    capacity: int
    length: int = 0

    def advance(self) -> int:
        """Take the next row of the window and return its index. Raises ValueError if the window is full."""
        if self.length >= self.capacity:
            raise ValueError(f"memory.step: row {self.length}, allowed are rows below capacity={self.capacity}")
        self.length += 1
        return self.length - 1


@dataclass
class Rows(State):
    """State that stores the episode and validity of each row."""

    episode: Tensor = field(init=False)  # (N, capacity)
    valid: Tensor = field(init=False)  # (N, capacity)

    def fill(self, episode: Tensor, valid: Tensor) -> None:
        """Set the first K rows: episode (N, K), valid (N, K)."""
        n, self.length = episode.shape
        self.episode = episode.new_zeros(n, self.capacity)
        self.valid = valid.new_zeros(n, self.capacity)
        self.episode[:, : self.length] = episode
        self.valid[:, : self.length] = valid

    def append(self, episode: Tensor, valid: Tensor) -> int:
        """Add one row, episode (N,), valid (N,), and return its index."""
        t = self.advance()
        self.episode[:, t] = episode
        self.valid[:, t] = valid
        return t


S = TypeVar("S", bound=State)


class Memory(nn.Module, Generic[S]):
    """Base class of memories: x -> h, both of width `dim`. S is the class of its state while acting.

    h_t depends only on the valid rows of the same episode up to t. Learning uses `forward`. Acting encodes the last K
    rows with `prefill` and then calls `step` once per row. Both give the same h. Rows that are not valid have a finite,
    meaningless h.
    """

    dim: int

    def layers(self, x: Tensor, episode: Tensor, valid: Tensor) -> list[Tensor]:
        """Return the activations (B, L, D) after each block, for x (B, L, D), episode (B, L) int64, valid (B, L) bool.

        The last one is the output of `forward`.
        """
        raise NotImplementedError

    def forward(self, x: Tensor, episode: Tensor, valid: Tensor) -> Tensor:
        """Encode a window: x (B, L, D), episode (B, L) int64, valid (B, L) bool -> h (B, L, D)."""
        return self.layers(x, episode, valid)[-1]

    def prefill(self, x: Tensor, episode: Tensor, valid: Tensor, capacity: int) -> tuple[Tensor, S]:
        """Encode K >= 0 rows: x (N, K, D) -> h (N, K, D) and a state for a window of `capacity` rows in total.

        No gradients. Raises ValueError if there are more rows than `capacity`.
        """
        raise NotImplementedError

    def step(self, x: Tensor, episode: Tensor, valid: Tensor, state: S) -> Tensor:
        """Encode the next row: x (N, D), episode (N,), valid (N,) -> h (N, D); `state` advances in place.

        No gradients. Raises ValueError if the window is full.
        """
        raise NotImplementedError


def check_capacity(rows: int, capacity: int) -> None:
    """Raise ValueError unless `rows` fit in a window of `capacity`."""
    if rows > capacity:
        raise ValueError(f"memory.prefill: {rows} rows, allowed are at most capacity={capacity}")


def check_positive(**sizes: int) -> None:
    """Raise ConfigError for the first of the named sizes that is not a positive whole number."""
    for name, size in sizes.items():
        check_range(f"memory.{name}", size, "[1, inf)", whole=True)


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype of matrix products of `x`, with or without autocast."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
