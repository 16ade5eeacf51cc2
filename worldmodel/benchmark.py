"""Methods x seeds, in parallel processes: `python -m worldmodel.benchmark suite=doorkey`."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hydra
import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from worldmodel.command import run_command
from worldmodel.config import CONFIG_DIR, ConfigError
from worldmodel.figures import compare_curves, read_metrics
from worldmodel.statistics import iqm_interval

COLUMNS = ("suite", "env", "method", "seed", "env_steps", "wall_s", "metric", "value")


def run_cell(out: Path, method: str, overrides: list[str], seed: int) -> Path:
    """Train one method with one seed in a process of one thread, unless its folder says that it is done."""
    folder = out / f"{method}_seed{seed}"
    record = folder / "run.json"
    if record.exists() and json.loads(record.read_text())["status"] == "done":
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "worldmodel.train", *overrides, f"seed={seed}", f"run_dir={folder}", "threads=1"]
    with (folder / "log.txt").open("w") as log:
        done = subprocess.run(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        print(f"{folder.name}: failed with exit code {done.returncode}, see {folder / 'log.txt'}", file=sys.stderr)
    return folder


def steps_to(metrics: dict[str, np.ndarray], threshold: float) -> tuple[float, float]:
    """Environment steps and wall-clock seconds at which return_ext first reaches a threshold; inf if never."""
    reached = np.flatnonzero(metrics["return_ext"] >= threshold)
    return (metrics["env_steps"][reached[0]], metrics["wall_s"][reached[0]]) if len(reached) else (np.inf, np.inf)


def collect(suite: str, methods: list[str], seeds: int, threshold: float, out: Path) -> list[dict[str, object]]:
    """One row for each method, seed and metric; a cell without metrics counts as failed, it is never left out."""
    rows: list[dict[str, object]] = []
    for method in methods:
        for seed in range(seeds):
            folder = out / f"{method}_seed{seed}"
            values = {"return_final": 0.0, "steps_to_threshold": np.inf, "seconds_to_threshold": np.inf}
            env_steps = wall = 0.0
            if (folder / "metrics.csv").exists() and (metrics := read_metrics(folder / "metrics.csv")):
                env_steps, wall = metrics["env_steps"][-1], metrics["wall_s"][-1]
                steps, seconds = steps_to(metrics, threshold)
                last = np.nan_to_num(metrics["return_ext"][-1])
                values = {"return_final": last, "steps_to_threshold": steps, "seconds_to_threshold": seconds}
            cell = dict(suite=suite, env=suite, method=method, seed=seed, env_steps=int(env_steps), wall_s=wall)
            rows += [cell | {"metric": k, "value": float(v)} for k, v in values.items()]
    return rows


def summarise(rows: list[dict[str, object]], methods: list[str], threshold: float) -> str:
    """A Markdown table: per method the share of seeds that reach the threshold, medians, and the final return."""
    lines = [
        f"| method | seeds ≥ {threshold} | median steps to it | median seconds | return at the end, IQM [95 %] |",
        "|---|---|---|---|---|",
    ]
    for method in methods:
        get = {
            m: np.array([r["value"] for r in rows if r["method"] == method and r["metric"] == m])
            for m in ("return_final", "steps_to_threshold", "seconds_to_threshold")
        }
        solved, count = int(np.isfinite(get["steps_to_threshold"]).sum()), len(get["return_final"])
        steps, seconds = (np.median(get[f"{m}_to_threshold"]) for m in ("steps", "seconds"))
        shown = [f"{steps:,.0f}", f"{seconds:.0f}"] if np.isfinite(steps) else ["never", "–"]
        iqm, low, high = iqm_interval(get["return_final"])
        lines.append(
            f"| {method} | {solved} of {count} | {shown[0]} | {shown[1]} | {iqm:.3f} [{low:.3f}, {high:.3f}] |"
        )
    return "\n".join(lines)


def provenance(folders: list[Path]) -> str:
    """How the figures were made, read off the cells' own records."""
    records = [json.loads(f.read_text()) for d in folders if (f := d / "run.json").exists()]
    if not records:
        return "No cell has run."
    machine, speeds = records[0]["machine"], [r["steps_per_s"] for r in records if r["steps_per_s"]]
    return (
        f"{len(records)} runs, {sum(r['wall_s'] for r in records) / 60:.0f} minutes of single-threaded processes on "
        f"{machine['cores']} cores of {machine['cpu']}, {np.median(speeds):.0f} steps/s a process at the median; "
        f"code {', '.join(sorted({str(r['git']) for r in records}))}; torch {records[0]['packages']['torch']}. "
        "The return is the mean over the last 200 episodes of the sampling policy while it trains; a run ends once it "
        "reaches the threshold. The interval is a bootstrap over seeds; a seed that never reaches the threshold counts "
        "as infinitely slow."
    )


def benchmark(cfg: DictConfig) -> Path:
    """Run what is missing, then write results.csv, summary.md and curves.png into `out`."""
    suite = cfg.suite
    known = list(suite.methods)
    methods = list(cfg.methods or known)
    if unknown := sorted(set(methods) - set(known)):
        raise ConfigError(f"methods={unknown}: allowed are {', '.join(known)}")
    out = Path(cfg.out or f"runs/benchmark/{suite.name}")
    out.mkdir(parents=True, exist_ok=True)
    seeds = {m: cfg.seeds or suite.methods[m].seeds for m in methods}
    cells = [(m, s) for m in methods for s in range(seeds[m])]
    began = time.perf_counter()
    with ThreadPoolExecutor(cfg.jobs or os.cpu_count()) as pool:
        jobs = [
            pool.submit(run_cell, out, m, [*suite.common, *suite.methods[m].overrides, *cfg.overrides], s)
            for m, s in cells
        ]
        for number, job in enumerate(jobs, 1):
            print(f"{number}/{len(jobs)} {job.result().name}  {time.perf_counter() - began:.0f} s", flush=True)
    rows = [r for m in methods for r in collect(suite.name, [m], seeds[m], suite.threshold, out)]
    with (out / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    notes = provenance([out / f"{m}_seed{s}" for m, s in cells])
    (out / "summary.md").write_text(f"{summarise(rows, methods, suite.threshold)}\n\n{notes}\n")
    compare_curves({m: [out / f"{m}_seed{s}" for s in range(seeds[m])] for m in methods}, out / "curves.png")
    _show(rows, methods, suite.threshold)
    return out


def _show(rows: list[dict[str, object]], methods: list[str], threshold: float) -> None:
    header, _, *body = summarise(rows, methods, threshold).splitlines()
    table = Table(*[c.strip() for c in header.strip("|").split("|")])
    for line in body:
        table.add_row(*[c.strip() for c in line.strip("|").split("|")])
    Console().print(table)


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="benchmark")
def _main(cfg: DictConfig) -> None:
    benchmark(cfg)


def main() -> None:
    """Console entry point. Exit codes: 0 done, 2 bad input, 1 anything else."""
    run_command(_main)


if __name__ == "__main__":
    main()
