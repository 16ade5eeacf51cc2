"""A population that is killed and resumed."""

from __future__ import annotations

import atexit
import csv
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import Any

UPDATE = 2048  # environment steps per update of experiment=doorkey
MEMBERS, INTERVALS = 4, 8


def evolved(folder: Path, scale: float) -> dict[str, Any]:
    """Population-based training on DoorKey-6x6: four members, killed (-9) after a quarter of their intervals.

    The same command resumes them. For comparison, each member's first hyperparameters are also kept to the end. The
    returns are means over the last 200 episodes, counted once all members have ended.
    """
    if find_spec("ray") is None:
        return {"skipped": "needs ray"}
    interval = max(round(6 * scale), 1) * UPDATE
    command = [sys.executable, "-m", "worldmodel.population", f"out={folder / 'all'}", f"members={MEMBERS}"]
    command += [f"interval={interval}", f"total_steps={INTERVALS * interval}", "fixed=true"]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("w+") as log:
        first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True)
        atexit.register(first.kill)  # after a signal
        ended = 0
        for line in first.stdout:
            ended += line.startswith("member ")
            if ended == MEMBERS * INTERVALS // 4:
                os.killpg(first.pid, signal.SIGKILL)
                break
        first.communicate()
        time.sleep(2)  # until the cluster has detected the kill
        again = subprocess.run(command, stdout=log, stderr=log, check=False)
        if first.returncode != -signal.SIGKILL or again.returncode:
            log.seek(0)
            raise RuntimeError(f"exit codes {first.returncode} and {again.returncode}: {log.read()[-500:]}")
    with (folder / "all" / "table.csv").open(newline="") as file:
        ends = {row["run"]: float(row["return_ext at the end"]) for row in csv.DictReader(file)}
    ends = {run: x if isfinite(x) else None for run, x in ends.items()}  # in a short run no episode may have ended
    members, kept = ([x for run, x in ends.items() if run.startswith(kind)] for kind in ("member", "fixed"))
    return {
        "environment_steps_of_a_member": INTERVALS * interval,
        "intervals_before_the_kill": ended,
        "members": dict(enumerate(members)),
        "first_hyperparameters_kept": dict(enumerate(kept)),
        "worst_member_less_worst_kept": None if None in ends.values() else min(members) - min(kept),
    }
