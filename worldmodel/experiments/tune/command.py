"""Tuning of signals with equal budgets: `python -m worldmodel.tune out=runs/tune`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from worldmodel.analysis.report.section import Table
from worldmodel.errors import ConfigError, check_choice, check_range
from worldmodel.experiments.benchmark.runner import Runner, cores, finished
from worldmodel.experiments.benchmark.suite import Cell, cells_of
from worldmodel.experiments.population.space import by_key
from worldmodel.experiments.tune.draws import Draw, make_draws, write_draws
from worldmodel.experiments.tune.ranking import finalists
from worldmodel.experiments.tune.report import write_report
from worldmodel.experiments.tune.results import ResultsFile, Trial, read_runs
from worldmodel.interruption import RESUMABLE
from worldmodel.training.config import CONFIG_DIR, check_keys
from worldmodel.training.exit_codes import bad_input_exits, run_command

SHOWN = (0, 1, 2, 3, 7, 11)  # columns of the ranking in the terminal
COUNTS = ("trials", "seeds", "finalists", "final_draws")


def tune(cfg: DictConfig) -> int:
    """Run the unfinished trials, then write the ranking and the presets into `out`. Raises ConfigError for bad input.

    Returns:
        The exit code: 0 done, 1 where a run failed (it counts as 0, and runs again next time), 75 after a signal.
    """
    check(cfg)
    out, worlds = Path(cfg.out or "runs/tune"), list(cfg.suite.envs)
    if not cfg.only_report:
        space = OmegaConf.to_container(cfg.space, resolve=True)
        draws, keys = make_draws(space, cfg.trials, cfg.seed), list(by_key(space))
        write_draws(out / "draws.csv", draws, keys)
        results, failed = ResultsFile(out / "results.csv", keys), False
        for stage in (1, 2) if cfg.stage is None else (cfg.stage,):
            chosen = dict.fromkeys(cfg.signals or list(cfg.suite.methods), range(cfg.trials))
            if stage == 2:
                best = finalists(read_runs(results.path), cfg.finalists, cfg.final_draws, cfg.seeds)
                if not best:
                    raise ConfigError(f"stage=2: {results.path} has no run of stage 1, which comes first")
                chosen = {signal: best[signal] for signal in (cfg.signals or best) if signal in best}
            numbered = {signal: [draws[i] for i in numbers if i < len(draws)] for signal, numbers in chosen.items()}
            runner = run(trials(cfg, out, stage, numbered), results, cfg.jobs or cores())
            if runner.signalled:
                return RESUMABLE
            failed |= "failed" in runner.state.values()
    console = Console()
    table = write_report(out, worlds, cfg.seeds)
    console.print(
        Table("signals", [table.header[i] for i in SHOWN], [[row[i] for i in SHOWN] for row in table.rows]).rich()
    )
    console.print(str(out / "ranking.md"), soft_wrap=True, highlight=False)
    return int(not cfg.only_report and failed)


def check(cfg: DictConfig) -> None:
    """Check a configuration. Raises ConfigError."""
    check_keys(cfg, "tune")
    for key in COUNTS:
        check_range(key, cfg[key], "[1, inf)", whole=True)
    for key in ("seed", "first_seed"):
        check_range(key, cfg[key], "[0, inf)", whole=True)
    check_range("jobs", cfg.jobs, "[1, inf)", whole=True, null=True)
    check_choice("stage", cfg.stage, (None, 1, 2))
    check_choice("only_report", cfg.only_report, (False, True))
    known = list(cfg.suite.methods)
    if len(cfg.suite.envs) != 2:
        raise ConfigError(f"suite={cfg.suite.name}: allowed are suites with two environments, one for each stage")
    if isinstance(cfg.signals, str):
        cfg.signals = [cfg.signals]
    if unknown := sorted(set(cfg.signals or ()) - set(known)):
        raise ConfigError(f"signals={unknown}: allowed are {', '.join(known)}")
    if unknown := sorted(set(cfg.own) - set(known)):
        raise ConfigError(f"own={unknown}: allowed are the signals of the suite, {', '.join(known)}")
    for signal, node in cfg.own.items():
        if not OmegaConf.is_dict(node):
            raise ConfigError(f"own.{signal}={node}: allowed is a mapping with key, and low and high or choices")


def trials(cfg: DictConfig, out: Path, stage: int, chosen: Mapping[str, Sequence[Draw]]) -> list[Trial]:
    """Return the trials of a stage, in the order of the signals; the configuration of each is composed and checked."""
    own: dict[str, Any] = OmegaConf.to_container(cfg.own, resolve=True)
    world = list(cfg.suite.envs)[stage - 1]
    named = {f"{signal}_draw{draw.number}": (signal, draw) for signal, draws in chosen.items() for draw in draws}
    methods = {
        name: {"overrides": [*cfg.suite.methods[signal].overrides, *draw.overrides(own.get(signal))]}
        for name, (signal, draw) in named.items()
    }
    suite = OmegaConf.merge(cfg.suite, {"envs": {}})
    suite.methods = methods
    seeds = range(cfg.first_seed, cfg.first_seed + cfg.seeds)
    cells: dict[str, list[Cell]] = {}
    for cell in cells_of(suite, out, envs=[world], seeds=seeds, overrides=list(cfg.overrides)):
        cells.setdefault(cell.method, []).append(cell)
    return [
        Trial(
            stage, signal, draw.number, tuple(methods[name]["overrides"]), own.get(signal, {}).get("key"), cells[name]
        )
        for name, (signal, draw) in named.items()
    ]


def run(found: Sequence[Trial], results: ResultsFile, jobs: int) -> Runner:
    """Run the unfinished cells of the trials, and append each finished one to the results.

    A row of the results is enough: its run is not repeated where the folders are gone, as on another machine.
    """
    trial_of = {cell.folder: trial for trial in found for cell in trial.cells}
    cells = []
    for cell in (cell for trial in found for cell in trial.cells):
        if finished(cell):
            results.append(trial_of[cell.folder], cell)
        if not results.has(trial_of[cell.folder], cell):
            cells.append(cell)
    runner = Runner(cells, jobs, on_done=lambda cell: results.append(trial_of[cell.folder], cell))
    runner.run()
    return runner


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="tune")
@bad_input_exits()
def _main(cfg: DictConfig) -> None:
    if code := tune(cfg):
        sys.exit(code)


def main() -> None:
    """Console entry point. Exit codes: 0 done, 2 bad input, 75 stopped by a signal and resumable, 1 a run failed."""
    run_command(_main)
