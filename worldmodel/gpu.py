"""Measure speed and reproducibility on a GPU: `python -m worldmodel.gpu --help`."""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig

from worldmodel.measure.gpu.command import measure_gpu
from worldmodel.training.config import CONFIG_DIR, check_keys
from worldmodel.training.exit_codes import bad_input_exits, run_command


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="gpu")
@bad_input_exits()
def _main(cfg: DictConfig) -> None:
    check_keys(cfg, "gpu")
    measure_gpu(cfg.parts, cfg.scale, Path(cfg.out))


def main() -> None:
    """Console entry point. Exit codes: 0 done, 2 bad input, 130 interrupted, 1 anything else."""
    run_command(_main)


if __name__ == "__main__":
    main()
