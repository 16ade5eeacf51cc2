"""Provenance of the figures, from the records of the runs: benchmark.json."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from worldmodel.experiments.benchmark.suite import Cell


def provenance(suite: str, cells: Sequence[Cell]) -> dict[str, Any]:
    """Collect runs, machines, code versions and durations from the records of the runs."""
    records = [json.loads(f.read_text()) for c in cells if (f := c.folder / "run.json").exists()]
    speeds = [r["steps_per_s"] for r in records if r.get("steps_per_s")]
    methods: dict[str, dict[str, Any]] = {}  # a row for each method in each environment
    for c in cells:
        row = methods.setdefault(
            f"{c.world.name}/{c.method}",
            {"env": c.env, "budget": c.budget, "seeds": [], "overrides": list(c.overrides)},
        )
        row["seeds"].append(c.seed)
    return {
        "suite": suite,
        "date": time.strftime("%Y-%m-%d"),
        "cells": len(cells),
        "runs": len(records),
        "finished": sum(r["status"] == "done" for r in records),
        "methods": methods,
        "git": sorted({str(r["git"]) for r in records}),
        "machines": _distinct(r["machine"] for r in records),
        "packages": _distinct(r["packages"] for r in records),
        "wall_s": round(sum(r["wall_s"] for r in records), 1),
        "env_steps": sum(int(r["env_steps"]) - r.get("steps_before", 0) for r in records),
        "steps_per_s": float(np.median(speeds)) if speeds else None,
        "metric": cells[0].metric,
        "stops_early": any(
            x.startswith("stop_return=") and x != "stop_return=null" for c in cells for x in c.overrides
        ),
        "evaluation": None if cells[0].evaluate is None else list(cells[0].evaluate),
    }


def provenance_text(made: dict[str, Any]) -> str:
    """Describe the provenance in one paragraph."""
    if not made["runs"]:
        return "No cell has run."
    words = effort_text(made)
    if made["metric"] == "return_ext":
        words += "The return is the mean over the last 200 episodes of the sampling policy while it trains. "
    if made["stops_early"]:
        words += "A run ends once it reaches its stop_return, and keeps its last value from there on. "
    return words + (
        "Intervals are 95 % percentile bootstraps over seeds, stratified over environments; a seed that never reaches "
        "the threshold counts as infinitely slow, a run without results as the worst score."
    )


def effort_text(made: dict[str, Any]) -> str:
    """Describe runs, steps, duration, machines and code in one sentence."""
    words = (
        f"{made['runs']} runs of {made['cells']} cells, {made['env_steps']:,} environment steps, "
        f"{made['wall_s'] / 60:.0f} minutes of single-threaded processes on {machine_text(made)}"
    )
    if made["steps_per_s"]:
        words += f", {made['steps_per_s']:.0f} steps/s a process at the median"
    torch = ", ".join(sorted({p["torch"] for p in made["packages"]}))
    return words + f"; code {', '.join(made['git'])}; torch {torch}. "


def machine_text(made: dict[str, Any]) -> str:
    """Describe the machines of the runs."""
    return "; ".join(
        f"{m['cores']} cores of {m['cpu']}" + (f" with {m['gpu']}" if m.get("gpu") else "") for m in made["machines"]
    )


def _distinct(records: Any) -> list[dict[str, Any]]:
    """Return the distinct records, in the order of their first appearance."""
    return list({json.dumps(r, sort_keys=True): r for r in records}.values())
