"""Complete runs on a GPU: speed of the training loop, and learning results compared with the CPU's."""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.interruption import RESUMABLE
from worldmodel.training.learning_curve import read_metrics

QUIET = ("video=false", "logger=none")
BIG = (
    "memory.dim=512",
    "memory.depth=8",
    "memory.heads=8",
    "env.num_envs=128",
    "data.minibatches=4",
)  # 21 M parameters in the memory
GPU, CPU = "trainer.accelerator=gpu", "trainer.accelerator=cpu"
RUNS = {
    "default, GPU": (GPU,),
    "default, CPU, one thread": (CPU, "threads=1"),
    "default, GPU, compiled": (GPU, "compile=true"),
    "21 M, GPU": (GPU, *BIG),
    "21 M, GPU, bf16-mixed": (GPU, *BIG, "trainer.precision=bf16-mixed"),
    "21 M, CPU, all threads": (CPU, *BIG),
}
UPDATES, LIMIT_S = 8, 40.0  # per run
LEARN_S = 300.0  # for all concurrent learning runs


def loop(folder: Path, scale: float) -> dict[str, Any]:
    """Runs of MiniGrid-DoorKey-8x8, one after the other with no other load, for eight updates or 40 s each.

    They are the default run (2,048 steps per update), and one with a memory of 21 M parameters and 128 environments
    (16,384 steps). Steps per second are those of the median update after the first one. The first one, which includes
    compilation, is given separately. The shares of each part are from `worldmodel.profile`, which synchronises with the
    GPU at each change of part.
    """
    rows = []
    for i, (name, overrides) in enumerate(RUNS.items()):
        update = 128 * (128 if BIG[0] in overrides else 16)
        run = start(folder / f"{i}", *overrides, f"total_steps={update * max(round(UPDATES * scale), 3)}")
        finish(run, folder / f"{i}", LIMIT_S)
        curve = read_metrics(folder / f"{i}" / "metrics.csv")
        took = np.diff(curve["wall_s"], prepend=0.0)  # the first one includes the start of the run
        speed = update / float(np.median(took[1:])) if len(took) > 1 else None
        rows.append({"run": name, "updates": len(took), "steps_per_s": speed, "first_update_s": float(took[0])})
    return {
        "runs": rows,
        "shares": [profiled(folder / "small", "default", scale), profiled(folder / "big", "21 M", scale, *BIG)],
    }


def learning(folder: Path, scale: float) -> dict[str, Any]:
    """The default run (MiniGrid-DoorKey-8x8, 200,000 steps, ends once its return over 200 episodes is 0.9) on the GPU.

    There are five seeds in float32, three in bf16-mixed and one compiled, run concurrently for five minutes at most, so
    the figures do not measure speed.
    """
    seeds = max(round(5 * scale), 1)
    wanted = [("float32", seed, ()) for seed in range(seeds)]
    wanted += [("bf16-mixed", seed, ("trainer.precision=bf16-mixed",)) for seed in range(max(round(3 * scale), 1))]
    wanted += [("float32, compiled", 0, ("compile=true",))]
    steps = f"total_steps={max(round(200_000 * scale), 1)}"
    processes = [
        start(folder / f"{i}", GPU, f"seed={seed}", "stop_return=0.9", "threads=1", steps, *overrides)
        for i, (_, seed, overrides) in enumerate(wanted)
    ]
    rows, deadline = [], time.monotonic() + LEARN_S
    for i, ((name, seed, _), process) in enumerate(zip(wanted, processes, strict=True)):
        finish(process, folder / f"{i}", max(deadline - time.monotonic(), 0.0))
        curve = read_metrics(folder / f"{i}" / "metrics.csv")
        steps, found = int(curve["env_steps"][-1]), float(curve["return_ext"][-1])  # nan before an episode has ended
        rows.append({"run": name, "seed": seed, "env_steps": steps, "return": found if np.isfinite(found) else None})
    solved = [row["env_steps"] for row in rows if row["run"] == "float32" and (row["return"] or 0) >= 0.9]
    median = float(np.median(solved)) if solved else None
    return {"seeds_solved": f"{len(solved)} of {seeds}", "median_steps_of_those": median, "runs": rows}


def start(run_dir: Path, *overrides: str) -> subprocess.Popen:
    """Start `worldmodel.train` in a separate process; its output goes to a file beside its folder."""
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{run_dir}.log", "w") as log:
        command = [sys.executable, "-m", "worldmodel.train", *QUIET, *overrides, f"run_dir={run_dir}"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    atexit.register(process.kill)  # after a signal
    return process


def finish(process: subprocess.Popen, run_dir: Path, limit_s: float) -> None:
    """Wait for a run, and ask it to stop after `limit_s` seconds.

    Raises RuntimeError with the end of its output if it failed.
    """
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        process.terminate()
    if (code := process.wait()) not in (0, RESUMABLE):
        raise RuntimeError(f"{run_dir.name}: exit code {code}: {Path(f'{run_dir}.log').read_text()[-1500:]}")


def profiled(folder: Path, name: str, scale: float, *overrides: str) -> dict[str, Any]:
    """Return the share of each part of an update. Raises RuntimeError if the profile failed."""
    asked = [*QUIET, GPU, f"updates={max(round(6 * scale), 1)}", *overrides, f"out={folder}"]
    command = [sys.executable, "-m", "worldmodel.profile", *asked]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"profile {name}: exit code {done.returncode}: {done.stderr[-1500:]}")
    report = json.loads((folder / "profile.json").read_text())
    shares = [f"{part} {found['share']:.3f}" for part, found in report["parts"].items() if found["share"] >= 0.005]
    return {"run": name, "steps_per_s": report["steps_per_s"], "shares": ", ".join(shares)}
