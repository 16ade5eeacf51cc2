"""Recording of datasets: `python -m worldmodel.record --help`."""

from __future__ import annotations

import warnings
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from worldmodel.analysis.console import shown_progress
from worldmodel.analysis.recording import record
from worldmodel.errors import ConfigError
from worldmodel.training.config import CONFIG_DIR, check_call, check_keys
from worldmodel.training.exit_codes import bad_input_exits, run_command


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="record")
@bad_input_exits()
def _main(cfg: DictConfig) -> None:
    check_keys(cfg, "record")
    if OmegaConf.is_missing(cfg, "out"):
        raise ConfigError("out=???: a folder must be given")
    given: dict[str, Any] = OmegaConf.to_container(cfg)
    check_call("", record, given)
    with shown_progress() as show:
        found = record(**given, progress=show)
    print(f"{cfg.out}: {found['episodes']} episodes, {found['steps']:,} steps, mean return {found['return_mean']:.3f}")


def main() -> None:
    """Console entry point. Exit codes: 0 done, 2 bad input, 130 interrupted, 1 anything else."""
    warnings.filterwarnings("ignore", module="lightning")
    run_command(_main)


if __name__ == "__main__":
    main()
