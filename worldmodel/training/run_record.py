"""Record of a run in run.json: its seed, versions and machine, its speed, and its final status."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from worldmodel.files import write_json
from worldmodel.training.metrics_file import steps_of

PACKAGES = ("torch", "lightning", "transformers", "gymnasium", "envpool", "minigrid", "numpy", "hydra-core")


class RunRecord:
    """Contents of DIR/run.json. The status is running, then done, stopped or failed.

    If the run `goes_on`, `before` has the previous contents of the file, and the counts continue from them. `cpu_s` is
    the CPU time of this process in seconds up to the last `write`, which hardly depends on the load of the machine.
    `peak_memory_mb` is the largest resident memory of a process of the run; None where the system does not report it.
    `steps_before` is the part of the steps (in environments and recorded ones) taken by the run of another folder whose
    checkpoint this run continues; `wall_s` does not include the time of these steps.
    """

    def __init__(self, run_dir: Path, seed: int, goes_on: bool = False):
        self.path, self.cpu_began = run_dir / "run.json", time.process_time()
        self.before: dict[str, Any] = read_record(self.path) if goes_on else {}
        self.data: dict[str, Any] = {
            "status": "running",
            "seed": seed,
            "env_steps": self.before.get("env_steps", 0),
            "steps_before": self.before.get("steps_before", 0),
            "wall_s": self.before.get("wall_s", 0.0),
            "cpu_s": self.before.get("cpu_s", 0.0),
            "steps_per_s": self.before.get("steps_per_s", 0.0),
            "git": _git(),
            "packages": _versions(),
            "machine": _machine(),
        }

    def begin_at(self, steps: int) -> None:
        """Set the steps of the initial checkpoint, unless the record already has those of an earlier start."""
        if not self.before:
            self.data["steps_before"] = steps

    def speed(self, row: dict[str, float]) -> dict[str, float]:
        """Return steps, seconds and speed of the whole run from a row of metrics.csv; empty for an empty row."""
        if not row:
            return {}
        steps, wall = int(row["env_steps"]), row["wall_s"]
        own = steps_of(row) - self.data["steps_before"]
        found = {"env_steps": steps, "wall_s": wall, "steps_per_s": round(own / wall, 1)}
        return found | ({"offline_steps": int(recorded)} if (recorded := steps_of(row) - steps) else {})

    def write(self, **changes: Any) -> None:
        """Update the record and write it atomically."""
        spent = time.process_time() - self.cpu_began
        peak = max(peak_memory_mb() or 0.0, self.before.get("peak_memory_mb") or 0.0)
        spent += self.before.get("cpu_s", 0.0)
        self.data |= changes | {"cpu_s": round(spent, 3), "peak_memory_mb": round(peak, 1) or None}
        write_json(self.path, self.data)


def peak_memory_mb() -> float | None:
    """Return the largest resident memory of this process so far, in MB of 10⁶ bytes."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def read_record(path: Path) -> dict[str, Any]:
    """Return the content of a run.json; empty, after a warning, for a damaged one, and empty for a missing one."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:  # not JSON, or not text
        found = None
    if isinstance(found, dict):
        return found
    print(f"warning: {path}: damaged, a new record begins", file=sys.stderr, flush=True)
    return {}


def _git() -> str | None:
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=here,
            capture_output=True,
            text=True,
        )
    except OSError:
        return None
    return done.stdout.strip() or None


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _machine() -> dict[str, Any]:
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        model = next((x.split(":")[1].strip() for x in cpuinfo.read_text().splitlines() if "model name" in x), model)
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.system(),
    }
