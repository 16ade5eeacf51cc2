"""GPU command: `python -m worldmodel.gpu scale=1.0 out=docs/results parts=[memory,loop]`."""

from __future__ import annotations

from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig

from worldmodel.errors import ConfigError
from worldmodel.measure.gpu.memory import acting, memory
from worldmodel.measure.gpu.runs import learning, loop
from worldmodel.measure.gpu.sameness import ranks_there, repeated_there
from worldmodel.measure.runner import Part, measure
from worldmodel.training.config import CONFIG_DIR
from worldmodel.training.exit_codes import bad_input_exits, run_command

PARTS: dict[str, Part] = {
    "memory": memory,
    "acting": acting,
    "loop": loop,
    "learning": learning,
    "repeated": repeated_there,
    "ranks": ranks_there,
}


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="gpu")
@bad_input_exits()
def _main(cfg: DictConfig) -> None:
    if not torch.cuda.is_available():
        raise ConfigError("device=cuda: torch finds no GPU on this machine")
    measure("gpu", "On a GPU", PARTS, cfg.parts, cfg.scale, Path(cfg.out))


def main() -> None:
    """Console entry point. Exit codes: 0 done, 2 bad input, 1 anything else."""
    run_command(_main)


if __name__ == "__main__":
    main()
