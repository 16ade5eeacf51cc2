"""Training on the workers of a Ray cluster: `python -m worldmodel.cluster run_dir=runs/two cluster.workers=2`."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from worldmodel.errors import ConfigError
from worldmodel.training.config import CONFIG_DIR, check, check_call
from worldmodel.training.exit_codes import bad_input_exits, run_command
from worldmodel.training.run import continued, make_run_dir, train


def cluster(cfg: DictConfig, overrides: list[str], *, workers: int, gpu: bool, address: str, max_failures: int) -> None:
    """Train as configured on `workers` of the cluster at `address`; goes on with what the run's folder holds.

    Raises ConfigError for bad input, RuntimeError where the workers failed more than `max_failures` times.
    """
    if workers < 1:
        raise ConfigError(f"cluster.workers={workers}: allowed are whole numbers from 1")
    try:
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
    except ImportError as error:
        raise ConfigError(f"cluster: needs the package ray[train] ({error})") from None
    run_dir = make_run_dir(cfg).resolve()
    cfg.run_dir, cfg.checkpoint = str(run_dir), cfg.checkpoint or "auto"
    check(cfg)
    plain, path = OmegaConf.to_container(cfg), list(sys.path)

    def work() -> None:
        sys.path[:] = path  # that of the command, so that the same code runs
        warnings.filterwarnings("ignore", module="lightning")
        train(continued(OmegaConf.create(plain), overrides))

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_CHDIR_TO_TRIAL_DIR": "0", "RAY_worker_niceness": "0"}
    size = {"num_cpus": workers + 1} if address == "local" else {}  # one more for Ray's own controller
    ray.init(address=address, include_dashboard=False, logging_level="error", **size)
    try:
        result = TorchTrainer(
            work,
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu),
            run_config=RunConfig(
                name="ray", storage_path=str(run_dir), failure_config=FailureConfig(max_failures=max_failures)
            ),
        ).fit()
    finally:
        ray.shutdown()
    if result.error:
        raise RuntimeError(f"{run_dir}: {result.error}")


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="cluster")
@bad_input_exits()
def _main(cfg: DictConfig) -> None:
    given: dict[str, Any] = OmegaConf.to_container(cfg.cluster)
    check_call("cluster", cluster, given)
    OmegaConf.set_struct(cfg, False)
    del cfg.cluster
    overrides = [x for x in HydraConfig.get().overrides.task if not x.startswith("cluster.")]
    cluster(cfg, overrides, **given)
    print(Path(cfg.run_dir))


def main() -> None:
    """Console entry point. Exit codes: 0 done, 2 bad input, 1 anything else."""
    run_command(_main)


if __name__ == "__main__":
    main()
