"""Cost of a learner step over the age of a run."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from worldmodel.experiments.studies.replay_age import replay_age
from worldmodel.experiments.study_runner import StudyRunner


def aged(folder: Path, scale: float) -> dict[str, Any]:
    """Time of a learner step with ten million stored steps (at scale 1), as a multiple of that with ten thousand.

    The times are medians over steps taken in turns, for each kind of replay. At scale 1 the part fills 3 GB of memory
    and 3 GB of disk.
    """
    stored = max(20_000, round(10_000_000 * scale))
    runner, repeats = StudyRunner("replay_age", folder, 1), max(20, round(200 * scale))
    replay_age(runner, common=["experiment=doorkey"], steps=[10_000, stored], repeats=repeats, rehearsed=1, seed=100)
    with (folder / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    ratios = {row["replay"]: float(row["against the smallest"]) for row in rows if int(row["stored steps"]) > 11_000}
    return {"stored_steps": stored, "step_against_ten_thousand": ratios}
