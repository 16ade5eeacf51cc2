"""Command that trains an agent: `python -m worldmodel.train --help`."""

from __future__ import annotations

import sys
import warnings

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from worldmodel.analysis.video import film
from worldmodel.interruption import RESUMABLE
from worldmodel.training.config import CONFIG_DIR
from worldmodel.training.exit_codes import bad_input_exits, run_command
from worldmodel.training.run import continued, train


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="train")
@bad_input_exits()
def _main(cfg: DictConfig) -> None:
    record = train(continued(cfg, list(HydraConfig.get().overrides.task)), film)
    if record["status"] == "stopped":
        sys.exit(RESUMABLE)


def main() -> None:
    """Console entry point. Exit codes: 0 done, 2 bad input, 75 resumable, 130 interrupted, 1 anything else."""
    warnings.filterwarnings("ignore", module="lightning")
    run_command(_main)


if __name__ == "__main__":
    main()
