"""Evaluation of checkpoints: `python -m worldmodel.evaluate --help`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from worldmodel.analysis.console import shown_progress
from worldmodel.analysis.report.report import evaluate
from worldmodel.analysis.report.section import Table
from worldmodel.errors import ConfigError
from worldmodel.training.checkpoint import run_dir_of
from worldmodel.training.config import CONFIG_DIR, check_call, check_keys
from worldmodel.training.exit_codes import bad_input_exits, run_command


def tables(report: dict[str, Any]) -> list[Table]:
    """Return the headline of one checkpoint's report as tables for the terminal."""
    keys = ("return_mean", "return_ci", "success", "length", "rew_int_raw", "rew_int")
    title = f"{report['checkpoint']}: agent of {report['env_steps']:,} steps"
    policies = Table(title, ["", "greedy", "sampled"], [[k, report["greedy"][k], report["sampled"][k]] for k in keys])
    if not report["delta_skill"]:
        return [policies]
    title = f"delta skill, open loop (latent of imagined steps: {report['open_loop_latent']})"
    greedy = report["greedy"]["delta_skill"]
    rows = [
        [h, greedy[h]["skill"], row["skill"], row["ci"], row["samples"]]
        for h, row in report["sampled"]["delta_skill"].items()
    ]
    return [policies, Table(title, ["steps ahead", "greedy", "sampled", "95 % of sampled", "samples"], rows)]


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="evaluate")
@bad_input_exits()
def _main(cfg: DictConfig) -> None:
    check_keys(cfg, "evaluate")
    if OmegaConf.is_missing(cfg, "checkpoint"):
        raise ConfigError("checkpoint=???: a path must be given, e.g. runs/…/checkpoints/last.ckpt")
    given: dict[str, Any] = OmegaConf.to_container(cfg)
    check_call("", evaluate, given)
    with shown_progress() as show:
        report = evaluate(**given, progress=show)
    console = Console()
    for result in report.get("checkpoints", [report]):
        for table in tables(result):
            console.print(table.rich())
    folder = Path(str(cfg.out or run_dir_of(cfg.checkpoint)))
    console.print(f"{folder / 'report.html'}", soft_wrap=True, highlight=False)


def main() -> None:
    """Console entry point. Exit codes: 0 done, 2 bad input, 130 interrupted, 1 anything else."""
    warnings.filterwarnings("ignore", module="lightning")
    run_command(_main)


if __name__ == "__main__":
    main()
