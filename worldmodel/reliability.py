"""Interrupt, break and repeat small runs: `python -m worldmodel.reliability --help`."""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig

from worldmodel.measure.reliability.command import reliability
from worldmodel.training.config import CONFIG_DIR, check_keys
from worldmodel.training.exit_codes import bad_input_exits, run_command


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="reliability")
@bad_input_exits()
def _main(cfg: DictConfig) -> None:
    check_keys(cfg, "reliability")
    reliability(cfg.scale, Path(cfg.out), cfg.parts, cfg.folders)


def main() -> None:
    """Console entry point. Exit codes: 0 done, 2 bad input, 130 interrupted, 1 anything else."""
    run_command(_main)


if __name__ == "__main__":
    main()
