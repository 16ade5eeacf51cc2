"""Past sequences, for the world model to rehearse."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch

from worldmodel.types import Rollout


class Replay:
    """The sequences of the last rollouts, on the CPU; sampled uniformly."""

    def __init__(self, capacity: int):
        if capacity < 0:
            raise ValueError(f"replay.capacity={capacity}: allowed are whole numbers from 0 (sequences)")
        self.sequences: deque[Rollout] = deque(maxlen=capacity)

    def __len__(self) -> int:
        return len(self.sequences)

    def add(self, roll: Rollout) -> None:
        """Store each of the rollout's B sequences."""
        if self.sequences.maxlen == 0:
            return
        for i in range(len(roll)):
            self.sequences.append(roll[i : i + 1].map(lambda x: x.cpu().clone()))

    def sample(self, count: int, device: torch.device) -> Rollout:
        """`count` sequences drawn with replacement."""
        picks = [self.sequences[i] for i in torch.randint(len(self.sequences), (count,)).tolist()]
        return concatenate(picks).map(lambda x: x.to(device))

    def state_dict(self) -> dict[str, Any]:
        return {"sequences": [vars(s) for s in self.sequences]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sequences.extend(Rollout(**s) for s in state["sequences"])


def concatenate(rolls: list[Rollout]) -> Rollout:
    """Join rollouts along the batch."""
    first = rolls[0]

    def cat(name: str):
        parts = [getattr(r, name) for r in rolls]
        if parts[0] is None:
            return None
        if isinstance(parts[0], dict):
            return {key: torch.cat([p[key] for p in parts]) for key in parts[0]}
        return torch.cat(parts)

    return Rollout(**{name: cat(name) for name in vars(first)})
