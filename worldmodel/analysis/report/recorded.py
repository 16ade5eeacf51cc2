"""Recorded rollouts, from which predictions start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from worldmodel.analysis.report.open_loop import Window
from worldmodel.model.world_model import Outputs, WorldModel
from worldmodel.types import Obs, Rollout, map_obs


@dataclass
class RecordedRollouts:
    """N x T transitions, with their context and the environment's `info`."""

    window: Window
    number: Tensor  # (N, T) of each transition's episode
    counted: Tensor  # (N, T) bool
    info: dict[str, Tensor]  # (N, T+1, ...) beside each observation
    h: Tensor  # (N, T, D) memory while acting
    obs: Obs | None  # (N, T+1, ...) where observations are symbols, which are small; else None

    @classmethod
    def of(cls, model: WorldModel, roll: Rollout, out: Outputs, number: Tensor, counted: Tensor) -> RecordedRollouts:
        """Record a rollout without the pixels of its observations."""
        obs = roll.new_rows(roll.obs) if hasattr(model.encoder, "codes") else None
        return cls(Window.of(model, roll, out.y), number, counted, roll.info, roll.h, obs)

    @classmethod
    def join(cls, parts: Sequence[RecordedRollouts]) -> RecordedRollouts:
        """Several rollouts as one with more copies."""
        if len(parts) == 1:
            return parts[0]
        obs = [part.obs for part in parts]
        return cls(
            Window.join([part.window for part in parts]),
            **{name: torch.cat([getattr(part, name) for part in parts]) for name in ("number", "counted", "h")},
            info={k: torch.cat([part.info[k] for part in parts]) for k in parts[0].info},
            obs=None if obs[0] is None else map_obs(lambda *x: torch.cat(x), *obs),
        )

    @property
    def real(self) -> Tensor:
        """(N, T) bool: counted transitions."""
        return self.counted & self.window.seq.new_steps(self.window.seq.mask)


def grouped(recorded: Sequence[RecordedRollouts], rows: int = 128) -> list[RecordedRollouts]:
    """Join rollouts into fewer ones of up to `rows` copies each; large batches are cheaper."""
    size = max(1, rows // len(recorded[0].number))
    return [RecordedRollouts.join(recorded[i : i + size]) for i in range(0, len(recorded), size)]


def spread(recorded: Sequence[RecordedRollouts], starts: int) -> list[int]:
    """Return transitions at even distances, at which every copy of each rollout starts: about `starts` in all."""
    new, copies = recorded[0].window.num_new, len(recorded[0].number)
    count = min(new, -(-starts // (copies * len(recorded))))
    return np.linspace(0, new, count, endpoint=False).astype(int).tolist()
