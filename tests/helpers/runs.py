"""Commands in this process, and the files of a run folder."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from unittest import mock

import torch
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra

from worldmodel import train
from worldmodel.training.checkpoint import read_checkpoint

TIMED = ("wall_s", "steps_per_s", "steps_per_s_collect", "steps_per_s_learn")  # metrics that differ between equal runs
STEPS = 32  # environment steps of an update of the tiny configuration, less its resets


def run_main(arguments: list[str], main: Callable[[], None] = train.main) -> int:
    """Run a command with these arguments and return its exit code. Restores torch's threads and the environment."""
    threads, before, environment = torch.get_num_threads(), sys.argv, dict(os.environ)
    sys.argv = ["worldmodel.train", *arguments]
    try:
        with mock.patch.object(Hydra, "get_mode", return_value=None):
            main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
        torch.set_num_threads(threads)
        GlobalHydra.instance().clear()
        os.environ.clear()
        os.environ.update(environment)
    return 0


def rows(run: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv."""
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: float(v or "nan") for k, v in row.items()} for row in csv.DictReader(file)]


def record(run: Path) -> dict:
    """The content of run.json."""
    return json.loads((run / "run.json").read_text())


def last(run: Path) -> dict:
    """The content of the newest checkpoint."""
    return read_checkpoint(run / "checkpoints" / "last.ckpt")


def check_whole(run: Path, total_steps: int) -> None:
    """Check that a run has the result of an uninterrupted one.

    Every update is there once, with four optimiser steps; the last one is the first to reach `total_steps`.
    """
    counted = [r["env_steps"] for r in rows(run)]
    assert all(0 < after - before <= STEPS for before, after in pairwise([0, *counted]))
    assert counted[-2:-1] < [total_steps] <= counted[-1:]
    saved, updates = last(run), len(counted)
    assert saved["global_step"] == 4 * updates and int(saved["state_dict"]["agent.env_steps"]) == counted[-1]
    assert {int(s["step"]) for s in saved["optimizer_states"][0]["state"].values()} == {4 * updates}
    assert saved["SequenceData"]["rollouts"] == updates
    assert record(run)["status"] == "done" and record(run)["env_steps"] == counted[-1]
