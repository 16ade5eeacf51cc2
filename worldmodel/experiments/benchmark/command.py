"""Benchmark of methods x environments x seeds: `python -m worldmodel.benchmark suite=doorkey`."""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig
from rich.console import Console

from worldmodel.errors import check_range
from worldmodel.experiments.benchmark import tables
from worldmodel.experiments.benchmark.provenance import provenance
from worldmodel.experiments.benchmark.report import write_report
from worldmodel.experiments.benchmark.results import Results, rows_of, write
from worldmodel.experiments.benchmark.runner import Runner, cores
from worldmodel.experiments.benchmark.suite import cells_of, with_presets
from worldmodel.files import write_json
from worldmodel.interruption import RESUMABLE
from worldmodel.training.config import CONFIG_DIR, check_keys
from worldmodel.training.exit_codes import bad_input_exits, run_command


def benchmark(cfg: DictConfig) -> int:
    """Run the unfinished cells, then write results.csv and the report into `out`. Raises ConfigError for bad input.

    Returns:
        The exit code: 0 done, 1 where a cell failed (the report includes it), 75 after a signal.
    """
    check_keys(cfg, "benchmark")
    for key in ("seeds", "jobs"):
        check_range(key, cfg[key], "[1, inf)", whole=True, null=True)
    check_range("first_seed", cfg.first_seed, "[0, inf)", whole=True, null=True)
    if cfg.report is not None:
        show(write_report(Path(cfg.report)), Path(cfg.report))
        return 0
    out = Path(cfg.out or f"runs/benchmark/{cfg.suite.name}")
    suite = with_presets(cfg.suite, Path(cfg.presets)) if cfg.presets else cfg.suite
    first = cfg.suite.get("first_seed", 0) if cfg.first_seed is None else cfg.first_seed
    cells = cells_of(
        suite,
        out,
        methods=cfg.methods,
        envs=cfg.envs,
        seeds=range(first, first + cfg.seeds) if cfg.seeds else None,
        first_seed=first,
        overrides=list(cfg.overrides),
    )
    runner = Runner(cells, cfg.jobs or cores())
    runner.run()
    if runner.signalled:
        return RESUMABLE
    out.mkdir(parents=True, exist_ok=True)
    write(out / "results.csv", [row for cell in cells for row in rows_of(cfg.suite.name, cell)])
    write_json(out / "benchmark.json", provenance(cfg.suite.name, cells))
    show(write_report(out), out)
    return int("failed" in runner.state.values())


def show(results: Results, out: Path) -> None:
    """Print the overview of each environment and the path of the report."""
    console = Console()
    for env in results.envs:
        console.print(tables.overview(results, env).rich())
    console.print(f"{out / 'report.html'}", soft_wrap=True, highlight=False)


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="benchmark")
@bad_input_exits()
def _main(cfg: DictConfig) -> None:
    if code := benchmark(cfg):
        sys.exit(code)


def main() -> None:
    """Console entry point. Exit codes: 0 done, 2 bad input, 75 stopped by a signal and resumable, 1 a cell failed."""
    run_command(_main)


if __name__ == "__main__":
    main()
