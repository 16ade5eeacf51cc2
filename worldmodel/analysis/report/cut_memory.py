"""The memory with its context cut to a number of steps."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.analysis.report.recorded import RecordedRollouts
from worldmodel.model.world_model import WorldModel


@torch.no_grad()
def cut(model: WorldModel, recorded: RecordedRollouts, starts: list[int], context: int) -> Tensor:
    """Memory h (N, S, D) before the transitions `starts` (S,), computed from `context` rows before the present one.

    Rows of other episodes stay masked.
    """
    window = recorded.window
    at = (
        torch.tensor(starts, device=window.z.device) + window.z.shape[1] - window.y.shape[1]
    )  # z has K more rows than y
    rows = at[:, None] + torch.arange(-context, 1, device=at.device)  # (S, context + 1)

    def windows(x: Tensor) -> Tensor:
        return x[:, rows].flatten(0, 1)  # (N * S, context + 1, ...)

    h = model.encode_sequence(windows(window.z), window.seq.map(windows))[:, -1]
    return h.unflatten(0, (-1, len(starts)))
