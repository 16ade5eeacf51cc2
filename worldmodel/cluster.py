"""Train on the workers of a Ray cluster: `python -m worldmodel.cluster run_dir=runs/two cluster.workers=2`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from worldmodel.analysis.video import film
from worldmodel.training.config import CONFIG_DIR, check_call
from worldmodel.training.exit_codes import bad_input_exits, run_command
from worldmodel.training.ray import cluster


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="cluster")
@bad_input_exits()
def _main(cfg: DictConfig) -> None:
    given: dict[str, Any] = OmegaConf.to_container(cfg.cluster)
    check_call("cluster", cluster, given)
    OmegaConf.set_struct(cfg, False)
    del cfg.cluster
    overrides = [x for x in HydraConfig.get().overrides.task if not x.startswith("cluster.")]
    cluster(cfg, overrides, film, **given)
    print(Path(cfg.run_dir))


def main() -> None:
    """Console entry point. Exit codes: 0 done, 2 bad input, 75 stopped by a signal, 1 anything else."""
    run_command(_main)


if __name__ == "__main__":
    main()
