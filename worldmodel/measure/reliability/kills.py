"""Runs and saves that are killed at random moments, and their state afterwards."""

from __future__ import annotations

import csv
import itertools
import os
import random
import signal
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from worldmodel.errors import ConfigError
from worldmodel.interruption import RESUMABLE
from worldmodel.measure.reliability.runs import (
    SHIPPED,
    fingerprint,
    finish,
    record,
    small_run,
    start,
    train_run,
    train_small,
)
from worldmodel.training.callbacks import CheckpointFiles
from worldmodel.training.checkpoint import FORMAT, SealedFiles, agent_state, newest_checkpoint, read_checkpoint

UPDATES = 12
SHIPPED_STEPS = 16_000


def killed(folder: Path, scale: float) -> dict[str, Any]:
    """Weights of runs that are killed (-9) at a random moment and restarted, against those of an uninterrupted run."""
    whole, seconds = _uninterrupted(folder)
    trials, equal, too_late = max(round(50 * scale), 2), 0, 0
    draw = random.Random(0)
    for i in range(trials):
        run = folder / f"killed_{i}"
        late = _interrupt(run, signal.SIGKILL, draw.uniform(0.02, 0.98) * seconds) == 0
        too_late += late
        small_run(run, UPDATES, "save.every=2")
        equal += fingerprint(run) == whole
    return {"runs": trials, "equal_weights": equal, "over_before_the_signal": too_late, "updates": UPDATES}


def shipped(folder: Path, scale: float) -> dict[str, Any]:
    """The default run at its full size, killed (-9) at a random moment and restarted, against an uninterrupted one."""
    arguments = (SHIPPED, [f"total_steps={SHIPPED_STEPS}", "save.every=1"])
    whole = folder / "shipped"
    began = time.monotonic()
    finish(start(train_run, whole, *arguments), whole)
    seconds = time.monotonic() - began
    trials, equal, too_late = max(round(5 * scale), 1), 0, 0
    draw = random.Random(3)
    for i in range(trials):
        run = folder / f"shipped_{i}"
        process = start(train_run, run, *arguments)
        process.join(draw.uniform(0.3, 0.98) * seconds)
        too_late += not process.is_alive()
        process.kill()
        process.join()
        finish(start(train_run, run, *arguments), run)
        equal += fingerprint(run) == fingerprint(whole)
    found = {"runs": trials, "equal_weights": equal, "over_before_the_signal": too_late}
    return found | {"environment_steps": record(whole)["env_steps"]}


def terminated(folder: Path, scale: float) -> dict[str, Any]:
    """SIGTERM at a random moment: the exit code, the steps lost, and the final weights."""
    whole, seconds = _uninterrupted(folder)
    trials, equal, lost, codes = max(round(20 * scale), 2), 0, 0, {}
    draw = random.Random(1)
    for i in range(trials):
        run = folder / f"terminated_{i}"
        code = _interrupt(run, signal.SIGTERM, draw.uniform(0.02, 0.98) * seconds)
        codes[code] = codes.get(code, 0) + 1
        if (run / "metrics.csv").exists():
            with (run / "metrics.csv").open(newline="") as file:
                seen = [int(row["env_steps"]) for row in csv.DictReader(file)]
            saved = int(agent_state(read_checkpoint(run / "checkpoints" / "last.ckpt"))["env_steps"])
            lost += (seen[-1] if seen else 0) - saved
        small_run(run, UPDATES, "save.every=1000")
        equal += fingerprint(run) == whole and record(run)["status"] == "done"
    codes = {"done" if k == 0 else "resumable" if k == RESUMABLE else str(k): n for k, n in sorted(codes.items())}
    return {"runs": trials, "equal_weights": equal, "env_steps_lost": lost, "exit_codes": codes}


def saves(folder: Path, scale: float, folders: Sequence[Path]) -> dict[str, Any]:
    """Checkpoints of a process that saves continuously and is killed (-9), on each of the file systems of `folders`."""
    found = {}
    for place in folders:
        trials, unreadable, older, parts = max(round(200 * scale / len(folders)), 5), 0, 0, 0
        draw = random.Random(2)
        for i in range(trials):
            run = place / f"saves_{i}"
            ours, theirs = torch.multiprocessing.Pipe()
            process = start(save_on_and_on, run, theirs)
            theirs.close()
            ours.recv()
            time.sleep(draw.uniform(0, 0.1))
            process.kill()
            process.join()
            acknowledged = 0
            while ours.poll():
                try:
                    acknowledged = ours.recv()
                except EOFError:
                    break
            parts += bool(list(run.rglob("*.part")))
            try:
                newest = read_checkpoint(newest_checkpoint(run / "checkpoints"))["global_step"]
                read_checkpoint(run / "checkpoints" / "last.ckpt")
                older += newest < acknowledged
            except (ConfigError, TypeError):
                unreadable += 1
        found[_file_system(place)] = {
            "kills": trials,
            "unreadable_newest": unreadable,
            "older_than_acknowledged": older,
            "killed_in_a_write": parts,
        }
    return found


def save_on_and_on(run: Path, pipe: Connection) -> None:
    """Save checkpoints of 2 MB without a pause, and report each one through the pipe once it is complete."""
    keys = ("loops", "optimizer_states", "lr_schedulers", "callbacks", "SequenceData")
    content = {"state_dict": {"w": torch.zeros(500_000)}, "config": {}, "format": FORMAT, "epoch": 0}
    content |= {key: {} for key in keys}
    files = CheckpointFiles(run / "checkpoints")
    for step in itertools.count(1):
        SealedFiles().save_checkpoint(content | {"global_step": step}, files.next)
        files.publish(best=False)
        pipe.send(step)


def _uninterrupted(folder: Path) -> tuple[str, float]:
    """Return the fingerprint of an uninterrupted run, and its duration in seconds."""
    whole = folder / "whole"
    began = time.monotonic()
    if not whole.exists():
        small_run(folder / "warm", 1)  # the first start imports everything
        began = time.monotonic()
        small_run(whole, UPDATES, "save.every=2")
        (folder / "seconds").write_text(str(time.monotonic() - began))
    return fingerprint(whole), float((folder / "seconds").read_text())


def _interrupt(run: Path, number: int, after: float) -> int:
    """Start a run, send it a signal after `after` seconds, and return its exit code."""
    process = start(train_small, run, UPDATES, "save.every=2" if number == signal.SIGKILL else "save.every=1000")
    process.join(after)
    if process.is_alive():
        os.kill(process.pid, number)
    process.join(60)
    return process.exitcode


def _file_system(folder: Path) -> str:
    """Return the type of the file system of a folder."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    real = folder.resolve()
    return max(((p, t) for p, t in mounts if real.is_relative_to(p)), key=lambda m: len(m[0]))[1]
