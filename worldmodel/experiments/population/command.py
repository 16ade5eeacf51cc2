"""Population-based training: `python -m worldmodel.population out=runs/mine members=4 interval=20_000`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from worldmodel.errors import ConfigError, check_range
from worldmodel.experiments.benchmark.runner import cores
from worldmodel.experiments.population.member import Plan
from worldmodel.experiments.population.report import write_report
from worldmodel.experiments.population.space import by_key, spread
from worldmodel.experiments.study_runner import Stopped, StudyRunner
from worldmodel.files import write_json
from worldmodel.interruption import RESUMABLE
from worldmodel.training.compose import compose_config
from worldmodel.training.config import CONFIG_DIR, check_call
from worldmodel.training.exit_codes import bad_input_exits, run_command

PLAN = "plan.json"  # settings of the folder's population, which a resumed one must share
SHARED = ("video=false", "logger=none", "threads=1")


def population(
    *,
    out: str | None,
    overrides: list[str],
    space: list[dict[str, Any]],
    members: int = 4,
    interval: int = 20_000,
    total_steps: int = 100_000,
    metric: str = "return_ext",
    seed: int = 0,
    quantile: float = 0.25,
    resample: float = 0.25,
    factors: tuple[float, float] = (0.8, 1.25),
    fixed: bool = False,
    jobs: int | None = None,
) -> Path:
    """Train a population, or resume that of the folder, and return the folder; see configs/population.yaml.

    Raises:
        ConfigError: for bad input.
        Stopped: after a signal.
        RuntimeError: where a member failed.
    """
    check_range("members", members, "[2, inf)", whole=True)
    check_range("interval", interval, "[1, inf)", whole=True)
    check_range("jobs", jobs, "[1, inf)", whole=True, null=True)
    check_range("quantile", quantile, "(0, 0.5]")
    check_range("resample", resample, "[0, 1]")
    ranges = by_key(space)
    plan = Plan(Path(out or "runs/population").resolve(), (*SHARED, *overrides), seed, interval, total_steps, metric)
    first = spread(ranges, members, seed)
    words = [f"{key}={value}" for key, value in first[0].items()]
    cfg = compose_config((*plan.overrides, *words), purpose="overrides")
    if interval < (update := cfg.env.num_envs * cfg.data.rollout_length) or total_steps < interval:
        raise ConfigError(f"interval={interval}: allowed is from an update, {update}, to total_steps={total_steps}")
    _claim(plan, {"space": ranges, "members": members, "quantile": quantile, "resample": resample, "factors": factors})
    try:
        from worldmodel.experiments.population.tuner import evolve
    except ImportError as error:
        raise ConfigError(f"population: needs the package ray[tune] ({error})") from None
    failed = evolve(
        plan, ranges, first, jobs=jobs or cores(), quantile=quantile, resample=resample, factors=tuple(factors)
    )
    if failed:
        raise RuntimeError(f"members {failed} of {plan.out} failed, see members/*/log.txt and ray/*/error.txt")
    runner = StudyRunner("fixed", plan.out / "fixed", jobs or cores())
    cells = []
    for i, setting in enumerate(first if fixed else ()):
        words = [f"{key}={value}" for key, value in setting.items()]
        common = [*plan.overrides, f"total_steps={total_steps}"]
        cells += runner.cells({f"fixed{i}": words}, common, [seed + i])
    runner.train(cells)
    Console().print(write_report(plan, ranges, members, [cell.folder for cell in cells]).rich())
    return plan.out


def _claim(plan: Plan, about: dict[str, Any]) -> None:
    """Record the population's settings in its folder. Raises ConfigError where the folder has other settings."""
    about |= {"overrides": list(plan.overrides), "seed": plan.seed, "interval": plan.interval}
    about |= {"total_steps": plan.total_steps, "metric": plan.metric, "factors": list(about["factors"])}
    path = plan.out / PLAN
    if path.exists():
        before = json.loads(path.read_text())
        if differ := sorted(key for key in about if about[key] != before.get(key)):
            raise ConfigError(f"out={plan.out}: holds a population with other {', '.join(differ)}, choose another out")
        return
    plan.out.mkdir(parents=True, exist_ok=True)
    write_json(path, about)


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="population")
@bad_input_exits()
def _main(cfg: DictConfig) -> None:
    given = OmegaConf.to_container(cfg, resolve=True)
    check_call("", population, given)
    try:
        print(population(**given) / "table.md")
    except Stopped:
        sys.exit(RESUMABLE)


def main() -> None:
    """Console entry point. Exit codes: 0 done, 2 bad input, 75 stopped by a signal and resumable, 1 anything else."""
    run_command(_main)


if __name__ == "__main__":
    main()
