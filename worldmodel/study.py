"""Studies: `python -m worldmodel.study study=random_against_policy`."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig, OmegaConf

from worldmodel.errors import check_range
from worldmodel.experiments.benchmark.runner import cores
from worldmodel.experiments.study_runner import Stopped, StudyRunner
from worldmodel.interruption import RESUMABLE
from worldmodel.training.config import CONFIG_DIR, HYDRA_KEYS, check_call, check_keys
from worldmodel.training.exit_codes import bad_input_exits, run_command


def study(cfg: DictConfig, name: str) -> Path:
    """Train the unfinished runs, then write table.csv, table.md and plot.png into `out`, and return it.

    Raises:
        ConfigError: for bad input.
        Stopped: after a signal.
    """
    check_keys(cfg, "study")
    check_range("jobs", cfg.jobs, "[1, inf)", whole=True, null=True)
    out = Path(cfg.out or f"runs/study/{name}")
    given = {k: v for k, v in OmegaConf.to_container(cfg.study, resolve=True).items() if k not in HYDRA_KEYS}
    check_call("study", get_method(cfg.study._target_), given)
    run = instantiate(cfg.study, _convert_="all", **given)
    run(runner=StudyRunner(name, out, cfg.jobs or cores()))
    print(out / "table.md")
    return out


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="study")
@bad_input_exits()
def _main(cfg: DictConfig) -> None:
    try:
        study(cfg, HydraConfig.get().runtime.choices.study)
    except Stopped:
        sys.exit(RESUMABLE)


def main() -> None:
    """Console entry point. Exit codes: 0 done, 2 bad input, 75 stopped by a signal and resumable, 1 anything else."""
    warnings.filterwarnings("ignore", module="lightning")
    run_command(_main)


if __name__ == "__main__":
    main()
