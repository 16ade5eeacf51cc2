"""Past sequences, for the world model to rehearse."""

from __future__ import annotations

from collections import deque
from dataclasses import fields
from typing import Any

import torch

from worldmodel.types import Rollout, Sequences, map_obs


class Replay:
    """The sequences of the last rollouts, on the CPU; sampled uniformly.

    They hold what the world model learns from, and `logp`, which tells T; not the h, the values or the rewards of
    days gone by.
    """

    def __init__(self, capacity: int):
        self.sequences: deque[Rollout] = deque(maxlen=capacity)

    def __len__(self) -> int:
        return len(self.sequences)

    def add(self, roll: Rollout) -> None:
        """Store each of the rollout's B sequences."""
        if self.sequences.maxlen == 0:
            return
        lasting = rehearsal(roll)
        for i in range(len(roll)):
            self.sequences.append(lasting[i : i + 1].map(lambda x: x.cpu().clone()))

    def sample(self, count: int, device: torch.device) -> Rollout:
        """`count` sequences drawn with replacement."""
        picks = [self.sequences[i] for i in torch.randint(len(self.sequences), (count,)).tolist()]
        return concatenate(picks).map(lambda x: x.to(device))

    def state_dict(self) -> dict[str, Any]:
        """All sequences as one, so that a checkpoint has few tensors."""
        return vars(concatenate(list(self.sequences))) if self.sequences else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if not state:
            return
        roll = Rollout(**state)
        self.sequences.extend(roll[i : i + 1].map(torch.clone) for i in range(len(roll)))


def rehearsal(roll: Rollout) -> Rollout:
    """The rollout without what only its own update needs."""
    return Rollout(**{f.name: getattr(roll, f.name) for f in fields(Sequences)}, logp=roll.logp)


def concatenate(rolls: list[Rollout]) -> Rollout:
    """Join rollouts along the batch; they keep what all of them have."""
    if len(rolls) == 1:
        return rolls[0]
    shared = [name for name in vars(rolls[0]) if all(getattr(r, name) is not None for r in rolls)]
    return Rollout(**{name: map_obs(lambda *x: torch.cat(x), *(getattr(r, name) for r in rolls)) for name in shared})
