"""Columns of metrics.csv, and the same in TensorBoard."""

from __future__ import annotations

import math
from pathlib import Path

from helpers.runs import rows
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

PARTS = ("model", "policy_encoder", "actor", "critic", "curiosity")
NAMES = [
    *("kl", "clip_fraction", "explained_variance_ext", "explained_variance_int", "return_scale"),
    *("steps_per_s_collect", "steps_per_s_learn"),
    *(f"grad_norm_{part}" for part in PARTS if part != "curiosity"),  # the default signal has no networks
]


def test_every_update_has_the_metrics_of_learning(tiny_run: Path) -> None:
    events = EventAccumulator(str(next(tiny_run.glob("tensorboard/**/events.*")).parent)).Reload()
    for row in rows(tiny_run):
        assert set(NAMES) <= row.keys()
        assert row["kl"] >= 0 and 0 <= row["clip_fraction"] <= 1 and row["explained_variance_int"] <= 1
        assert all(row[f"grad_norm_{part}"] > 0 for part in PARTS[:-1])
        phases = 1 / row["steps_per_s_collect"] + 1 / row["steps_per_s_learn"]
        assert 0 < phases <= 1.05 / row["steps_per_s"], "the phases are disjoint parts of an update"
    for name in NAMES:
        values = [x.value for x in events.Scalars(name)]
        assert len(values) == len(rows(tiny_run)), name
        for value, row in zip(values, rows(tiny_run), strict=True):
            assert math.isclose(value, row[name], rel_tol=1e-4, abs_tol=1e-9) or math.isnan(row[name])
