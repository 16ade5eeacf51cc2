"""Profile a run: `python -m worldmodel.profile --help`."""

from __future__ import annotations

import warnings

import hydra
from omegaconf import DictConfig, open_dict
from rich.console import Console

from worldmodel.measure.profile import profile, tables
from worldmodel.training.config import CONFIG_DIR, whole
from worldmodel.training.exit_codes import bad_input_exits, run_command


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="profile")
@bad_input_exits()
def _main(cfg: DictConfig) -> None:
    with open_dict(cfg):
        own = {key: whole(cfg.pop(key)) for key in ("updates", "warmup", "out")}
    report = profile(cfg, **own)
    console = Console()
    for table in tables(report):
        console.print(table.rich())


def main() -> None:
    """Console entry point. Exit codes: 0 done, 2 bad input, 130 interrupted, 1 anything else."""
    warnings.filterwarnings("ignore", module="lightning")
    run_command(_main)


if __name__ == "__main__":
    main()
