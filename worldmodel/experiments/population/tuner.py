"""Population-based training (Jaderberg et al. 2017, arXiv 1711.09846) of training runs with Ray Tune."""

from __future__ import annotations

import logging
import os
import random
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining
from ray.tune.search import BasicVariantGenerator

from worldmodel.experiments.population.member import Plan, Start, advance, checkpoint_of
from worldmodel.experiments.population.space import is_whole, within
from worldmodel.files import alias
from worldmodel.interruption import install_again

SETTINGS = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths refer to the command's folder
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # a higher value would slow the workers down on a busy machine
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it would return the members as if they had finished
    "TUNE_GLOBAL_CHECKPOINT_S": "1",  # s of progress that a kill can lose
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "OMP_NUM_THREADS": "1",
}


class Synchronous(PopulationBasedTraining):
    """Ray's scheduler with all members at the same interval, also after a restart.

    Ray saves trials but not schedulers. Without this class, members that had finished the interval in which the
    population was killed would run a further one, and would be compared one interval ahead of the others.
    """

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        super().on_trial_add(tune_controller, trial)
        if self._time_attr in trial.last_result:  # a result from before the restart
            state = self._trial_state[trial]
            self._save_trial_state(state, trial.last_result[self._time_attr], trial.last_result, trial)
            if trial.status == Trial.PENDING:
                trial.set_status(Trial.PAUSED)  # a paused trial waits for its turn, a pending one starts immediately
        done = [state.last_train_time for state in self._trial_state.values()]
        for state in self._trial_state.values():
            state.last_perturbation_time = min(done)
        self._next_perturbation_sync = min(done) + self._perturbation_interval


class IntervalLog(tune.Callback):
    """Prints a line for each interval of a member."""

    def __init__(self, metric: str):
        self.metric = metric

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: dict, **info: Any) -> None:
        words = f"{result['env_steps']:,} steps  {self.metric} {result[self.metric]:.3f}"
        print(f"member {number(trial.trial_id)}: {words}", flush=True)


def number(trial_id: str) -> int:
    """Return the number of a member from its trial's identifier, which ends with a count."""
    return int(trial_id.rpartition("_")[2])


def evolve(
    plan: Plan,
    space: Mapping[str, Mapping[str, Any]],
    first: Sequence[Mapping[str, Any]],
    *,
    jobs: int,
    quantile: float,
    resample: float,
    factors: tuple[float, float],
) -> list[int]:
    """Train the population, or resume a killed one, and return the members that failed.

    After each interval, the worst `quantile` continue from checkpoints of the best `quantile`. Each of their
    hyperparameters is multiplied by one of `factors` (choices: the next one), or resampled with probability `resample`.
    `jobs` members train at a time.
    """
    os.environ.update(SETTINGS)
    random.seed(plan.seed)  # Ray uses this generator
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    ray.init(address="local", num_cpus=jobs, include_dashboard=False, log_to_driver=False, logging_level="error")
    install_again()  # Ray's handler of SIGTERM would exit with code 15
    try:
        domains = {name: _domain(node) for name, node in space.items()}
        scheduler = Synchronous(
            time_attr="intervals",
            metric=plan.metric,
            mode="max",
            perturbation_interval=1,
            hyperparam_mutations=domains,
            quantile_fraction=quantile,
            resample_probability=resample,
            perturbation_factors=factors,
            custom_explore_fn=lambda setting: within(space, setting),
            log_config=False,
            synch=True,
        )
        found = _tuner(plan, first, domains, scheduler).fit()
    finally:
        ray.shutdown()
    return sorted(number(r.metrics["trial_id"]) if r.metrics else -1 for r in found if r.error)


def _tuner(
    plan: Plan, first: Sequence[Mapping[str, Any]], domains: Mapping[str, Any], scheduler: Synchronous
) -> tune.Tuner:
    """Return a new tuner, or restore that of the folder."""
    folder = plan.out / "ray"
    trainable = _trainable(plan)
    if tune.Tuner.can_restore(str(folder)):
        tuner = tune.Tuner.restore(str(folder), trainable, resume_errored=True)
        # Ray stores the initial scheduler; the new one takes its state from the trials
        tuner._local_tuner._tune_config.scheduler = scheduler
        return tuner
    return tune.Tuner(
        trainable,
        param_space={name: tune.choice(list(x)) if isinstance(x, list) else x for name, x in domains.items()},
        tune_config=tune.TuneConfig(
            num_samples=len(first),
            scheduler=scheduler,
            search_alg=BasicVariantGenerator(points_to_evaluate=[dict(x) for x in first]),
            trial_dirname_creator=lambda trial: str(number(trial.trial_id)),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=str(plan.out.resolve()),
            stop={"intervals": plan.intervals},
            checkpoint_config=tune.CheckpointConfig(num_to_keep=3),
            callbacks=[IntervalLog(plan.metric)],
            verbose=0,
        ),
    )


def _trainable(plan: Plan) -> Callable[[dict[str, Any]], None]:
    path = list(sys.path)

    def member(config: dict[str, Any]) -> None:
        sys.path[:] = path  # the command's path, so that the same code runs
        own = number(tune.get_context().get_trial_id())
        given = tune.get_checkpoint()  # its own checkpoint, or that of the copied member
        start = Start.at(Path(given.path) / "last.ckpt") if given else Start()
        while start.env_steps < plan.total_steps:
            found = advance(plan, own, config, start)
            with tempfile.TemporaryDirectory(dir=plan.folder(own)) as folder:
                alias(checkpoint_of(plan, own), Path(folder) / "last.ckpt")
                tune.report(found, checkpoint=tune.Checkpoint.from_directory(folder))  # Ray takes a copy
            start = Start.at(checkpoint_of(plan, own))

    return member


def _domain(node: Mapping[str, Any]) -> Any:
    if "choices" in node:
        return list(node["choices"])
    low, high = node["low"], node["high"]
    if is_whole(node):
        return (tune.lograndint if node.get("log") else tune.randint)(low, high + 1)
    return (tune.loguniform if node.get("log") else tune.uniform)(low, high)
