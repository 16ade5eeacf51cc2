"""Member of a population: trains an interval at a time from its own or another member's checkpoint."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldmodel.analysis.video import film
from worldmodel.files import atomic_write
from worldmodel.training.checkpoint import agent_state, read_checkpoint
from worldmodel.training.compose import compose_config
from worldmodel.training.learning_curve import read_metrics
from worldmodel.training.run import continued, train


@dataclass(frozen=True)
class Plan:
    """Settings of all members. `interval` and `total_steps` are environment steps of one member."""

    out: Path
    overrides: tuple[str, ...]
    seed: int
    interval: int
    total_steps: int
    metric: str

    def folder(self, member: int) -> Path:
        """The run folder of a member."""
        return self.out / "members" / str(member)

    @property
    def intervals(self) -> int:
        """Number of intervals of a member."""
        return -(-self.total_steps // self.interval)


@dataclass(frozen=True)
class Start:
    """Start of an interval: the checkpoint, its steps, and the member it belongs to (None in the first interval)."""

    checkpoint: Path | None = None
    env_steps: int = 0
    parent: int | None = None

    @classmethod
    def at(cls, checkpoint: Path) -> Start:
        """Start from a checkpoint, whose configuration names its run. Raises ConfigError."""
        saved = read_checkpoint(checkpoint, to_go_on=True)
        return cls(checkpoint, int(agent_state(saved)["env_steps"]), int(Path(saved["config"]["run_dir"]).name))


def advance(plan: Plan, member: int, hyperparameters: Mapping[str, Any], start: Start) -> dict[str, Any]:
    """Train one interval in the member's folder; return `intervals` (done so far), `env_steps` and the metric.

    The run is built with the given hyperparameters; the checkpoint restores weights, moments and statistics, but no
    settings. The restore therefore cannot undo a perturbation (ray #62173).
    """
    count = start.env_steps // plan.interval + 1
    steps = min(count * plan.interval, plan.total_steps)
    folder = plan.folder(member)
    words = [f"{key}={value}" for key, value in hyperparameters.items()]
    words += [f"seed={plan.seed + member}", f"run_dir={folder}", f"total_steps={steps}"]
    words += [f"checkpoint={start.checkpoint}"] if start.checkpoint else []
    cfg = compose_config((*plan.overrides, *words), purpose=f"member {member}")
    folder.mkdir(parents=True, exist_ok=True)
    with into(folder / "log.txt"):
        train(continued(cfg, words), film, into_any_run=True)
    metrics = read_metrics(folder / "metrics.csv")
    found = {"intervals": count, "env_steps": int(metrics["env_steps"][-1]), plan.metric: metrics[plan.metric][-1]}
    note(plan, member, hyperparameters, start, found)
    return found


def note(plan: Plan, member: int, hyperparameters: Mapping[str, Any], start: Start, found: Mapping[str, Any]) -> None:
    """Add the interval to the member's lineage.csv, in place of the rows of a killed attempt."""
    path = plan.folder(member) / "lineage.csv"
    rows = [row for row in lineage(path) if int(row["from_steps"]) < start.env_steps]
    parent = "" if start.parent is None else start.parent
    about = {"member": member, "interval": found["intervals"], "from_steps": start.env_steps}
    rows.append(about | {"to_steps": found["env_steps"], "parent": parent, plan.metric: found[plan.metric]}
                | dict(hyperparameters))  # fmt: skip
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[-1]))
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(path, lambda file: file.write(text.getvalue().encode()))


def lineage(path: Path) -> list[dict[str, Any]]:
    """Return the finished intervals of a member from its lineage.csv."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@contextmanager
def into(path: Path) -> Iterator[None]:
    """Append everything that is printed within the context to a file."""
    before = sys.stdout, sys.stderr
    with path.open("a", buffering=1, encoding="utf-8", errors="replace") as file:
        sys.stdout = sys.stderr = file
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before


def checkpoint_of(plan: Plan, member: int) -> Path:
    """The newest checkpoint of a member."""
    return plan.folder(member) / "checkpoints" / "last.ckpt"
