"""Training on the workers of a Ray cluster."""

from __future__ import annotations

import os
import sys
import warnings

from omegaconf import DictConfig, OmegaConf

from worldmodel.errors import ConfigError, check_range
from worldmodel.interruption import install_again
from worldmodel.training.config import check
from worldmodel.training.run import Film, continued, make_run_dir, train


def cluster(
    cfg: DictConfig,
    overrides: list[str],
    film: Film | None = None,
    *,
    workers: int,
    gpu: bool,
    address: str,
    max_failures: int,
) -> None:
    """Train as configured on workers of a cluster, or resume the run in the run's folder.

    Args:
        cfg: the training configuration.
        overrides: the command's overrides, which take precedence over those of a resumed run.
        film: see `train`.
        workers: number of worker processes, which are the ranks of the run.
        gpu: each worker uses a GPU.
        address: of the cluster; `local` starts one on this machine.
        max_failures: number of restarts of failed workers.

    Raises:
        ConfigError: for bad input.
        RuntimeError: if the workers failed more than `max_failures` times.
    """
    check_range("cluster.workers", workers, "[1, inf)", whole=True)
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
        sys.path[:] = path  # of the command, so that workers run the same code
        warnings.filterwarnings("ignore", module="lightning")
        train(continued(OmegaConf.create(plain), overrides), film)

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_CHDIR_TO_TRIAL_DIR": "0", "RAY_worker_niceness": "0"}
    size = {"num_cpus": workers + 1} if address == "local" else {}  # one more for Ray's own controller
    ray.init(address=address, include_dashboard=False, logging_level="error", **size)
    install_again()  # Ray's handler of SIGTERM would exit with code 15
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
