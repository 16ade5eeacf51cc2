"""Replay priorities: rarely drawn or badly predicted sequences are drawn more often."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worldmodel.errors import check_range
from worldmodel.experience.replay.sum_tree import SumTree


class CuriousReplayPriority:
    """Curious Replay (Kauvar et al. 2023, arXiv 2306.15934): p = c beta^visits + (|loss| + eps)^alpha.

    A sequence that was never drawn has the priority `fresh`. Drawn sequences receive theirs after the world model's
    loss on them is known. The loss is the squared prediction error in units of the delta's variance, averaged over the
    real steps.

    Raises ValueError for values out of range.
    """

    def __init__(self, c: float = 1e4, beta: float = 0.7, alpha: float = 0.7, eps: float = 0.01, fresh: float = 1e5):
        for key, value in (("c", c), ("alpha", alpha)):
            check_range(f"data.replay_priority.{key}", value, "[0, inf)")
        for key, value in (("eps", eps), ("fresh", fresh)):
            check_range(f"data.replay_priority.{key}", value, "(0, inf)")
        check_range("data.replay_priority.beta", beta, "[0, 1]")
        self.c, self.beta, self.alpha, self.eps, self.fresh = c, beta, alpha, eps, fresh
        self.tree, self.visits = SumTree(1), np.zeros(1, dtype=np.int32)

    def reset(self, capacity: int) -> None:
        """Prepare for `capacity` slots, all empty."""
        self.tree, self.visits = SumTree(capacity), np.zeros(capacity, dtype=np.int32)

    def add(self, slots: NDArray[np.int64]) -> None:
        """Register new sequences in these slots (n,)."""
        self.visits[slots] = 0
        self.tree.put(slots, np.full(len(slots), self.fresh))

    def draw(self, shares: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return slots (n,) in proportion to their priority, by shares (n,) in [0, 1)."""
        return self.tree.find(shares)

    def update(self, slots: NDArray[np.int64], loss: NDArray[np.float64]) -> None:
        """Update the priorities of these slots (n,) with the world model's loss on them (n,)."""
        np.add.at(self.visits, slots, 1)
        self.tree.put(slots, self.c * self.beta ** self.visits[slots] + (np.abs(loss) + self.eps) ** self.alpha)

    def state_dict(self, slots: NDArray[np.int64]) -> dict[str, Any]:
        """Return the priorities and visits of these slots (n,), in their order."""
        return {"weights": torch.from_numpy(self.tree[slots]), "visits": torch.from_numpy(self.visits[slots])}

    def load_state_dict(self, state: dict[str, Any], slots: NDArray[np.int64]) -> None:
        """Restore as many of the last slots as the state covers; the other slots count as new."""
        self.add(slots)
        weights, visits = (state[key].numpy()[-len(slots) :] for key in ("weights", "visits"))
        slots = slots[len(slots) - len(weights) :]
        self.tree.put(slots, weights)
        self.visits[slots] = visits
