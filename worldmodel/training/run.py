"""Training runs, from the configuration to the run folder."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy
from omegaconf import DictConfig, OmegaConf

from worldmodel.distributed import part_at_exit
from worldmodel.errors import UNWRITABLE, ConfigError, NonFiniteLoss, UnwritableError
from worldmodel.files import atomic_write, write_text
from worldmodel.interruption import Interrupted
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.training.build import build_agent, build_data, build_module, env_spec
from worldmodel.training.callbacks import (
    AliveValue,
    CollapseGuard,
    Metrics,
    ProgressBar,
    ReplayPriorities,
    StopAtBudget,
    StopIfTaken,
    StopOnSignal,
    StopWhenSolved,
)
from worldmodel.training.checkpoint import (
    SealedFiles,
    agent_state,
    newest_checkpoint,
    read_checkpoint,
    run_dir_of,
)
from worldmodel.training.config import bad_input, check, fill
from worldmodel.training.datamodule import SequenceData
from worldmodel.training.learning_curve import learning_curve
from worldmodel.training.loggers import tolerant
from worldmodel.training.preemption import preemption_notices
from worldmodel.training.resume import check_resumable, with_own_environments
from worldmodel.training.rollback import Rollback
from worldmodel.training.run_folder import (
    DONE,
    is_same_run,
    make_run_dir,
    only_if_used,
    refuse_another_run,
    remove_run,
)
from worldmodel.training.run_lock import FolderTaken, RunLock, owned
from worldmodel.training.run_record import RunRecord
from worldmodel.training.start_checks import check_compiler, check_precision, is_of_compiler, seed_libraries

Film = Callable[[CuriousAgent, DictConfig, Path], str]  # returns the file, or the reason for its absence


def train(cfg: DictConfig, film: Film | None = None, into_any_run: bool = False) -> dict[str, Any]:
    """Train as configured, in a new run folder or from a checkpoint.

    Args:
        cfg: the training configuration.
        film: records a video of the trained agent.
        into_any_run: allow a checkpoint of another folder although the folder holds a run, which goes on from it.

    Returns:
        The contents of run.json.

    Raises:
        ConfigError: for bad input.
        NonFiniteLoss: for a loss that is not finite after all returns that `rollback` allows.
    """
    checkpoint_path, new = find_checkpoint(cfg), cfg.run_dir is None
    run_dir = make_run_dir(cfg)
    cfg.run_dir = str(run_dir)
    with only_if_used(run_dir, new), owned(run_dir) as lock:
        check(cfg)
        if lock and not into_any_run:  # on other ranks, the folder has the files of the first one by now
            refuse_another_run(cfg, checkpoint_path, run_dir)
        overwrite = cfg.overwrite and not is_same_run(checkpoint_path, run_dir)
        cfg.overwrite = False  # a checkpoint does not hold it, else resuming in another folder would overwrite that
        with bad_input(cfg):
            rollback = instantiate(cfg.rollback)
        left = rollback.times
        while True:
            try:
                return train_from(checkpoint_path, cfg, rollback, film, lock, overwrite)
            except Interrupted as error:
                kept = (run_dir / "checkpoints" / "last.ckpt").exists()
                error.resumable = kept or cfg.checkpoint is not None
                raise
            except OSError as error:
                if error.errno not in UNWRITABLE:
                    raise
                where = f"run_dir={run_dir}: {error.filename or 'a file'}: {error.strerror}"
                raise UnwritableError(f"{where}; the checkpoints there are intact") from error
            except NonFiniteLoss as error:
                if left == 0:
                    raise
                left, overwrite = left - 1, False
                checkpoint_path = newest_checkpoint(run_dir / "checkpoints") or checkpoint_path
                rollback.slow_down(cfg)
                action = f"going back to {checkpoint_path or 'the beginning'} with optimizer.lr={cfg.optimizer.lr:g}"
                print(f"warning: {error}; {action}", file=sys.stderr, flush=True)


def train_from(
    checkpoint_path: str | Path | None,
    cfg: DictConfig,
    rollback: Rollback,
    film: Film | None = None,
    lock: RunLock | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train from a checkpoint, or from the beginning without one, in a folder of which `lock` is held; see `train`."""
    run_dir = Path(cfg.run_dir)
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    seed_libraries(cfg.seed)
    with bad_input(cfg):
        agent = build_agent(cfg, env_spec(cfg))
        data = build_data(cfg, agent.env_spec)
        module = build_module(cfg, agent, rollback.limit)
    data.stream.actions = run_dir / "actions"
    if checkpoint_path:
        data.stream.earlier_actions = run_dir_of(checkpoint_path) / "actions"
    if cfg.compile:
        agent.model.compile()
    notices = preemption_notices(cfg.preemption)
    record = RunRecord(run_dir, cfg.seed, goes_on=checkpoint_path is not None and not overwrite)
    metrics, stop = Metrics(run_dir, data.stream), StopOnSignal()
    if checkpoint_path:
        saved = read_checkpoint(checkpoint_path, to_go_on=True)
        check_resumable(saved, cfg, agent, checkpoint_path)
        state = with_own_environments(agent_state(saved), agent)
        recorded = int(saved["SequenceData"].get("offline_steps", 0))
        if (steps := int(state["env_steps"]) + recorded) >= cfg.total_steps:
            agent.offline_steps.fill_(recorded)
            return finished(cfg, agent, state, metrics, record, film)
        record.begin_at(steps)
    with bad_input(cfg):
        checkpoints = fill(instantiate(cfg.save), run_dir=run_dir, metrics=metrics)
        noise_scale, resets = (
            [
                fill(
                    instantiate(node),
                    metrics=metrics,
                    seed=cfg.seed,
                    make_agent=lambda: build_agent(cfg, env_spec(cfg)),
                )
            ]
            if "_target_" in node
            else []
            for node in (cfg.noise_scale, cfg.resets)
        )
    callbacks = [
        *([StopIfTaken(lock)] if lock else []),  # first, before anything is written
        *noise_scale,  # before `metrics`, which writes its values
        metrics,
        ReplayPriorities(data.stream),
        ProgressBar(metrics, cfg.total_steps),
        CollapseGuard(metrics),
        AliveValue(metrics, agent.objective, agent.task_return),
        StopWhenSolved(metrics, cfg.stop_return),
        stop,
        *resets,
        checkpoints,
    ]
    trainer = make_trainer(cfg, callbacks, data)
    if cfg.compile:
        check_compiler(trainer.strategy.root_device.type)
    if rollback.times and trainer.world_size > 1:
        raise ConfigError(f"rollback.times={rollback.times}: allowed with several ranks is 0")
    if trainer.world_size > 1:
        part_at_exit()
    main = trainer.is_global_zero
    if main:
        if overwrite:
            remove_run(run_dir)
        (run_dir / DONE).unlink(missing_ok=True)
        write_text(run_dir / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
        for logger in trainer.loggers:
            logger.log_hyperparams(OmegaConf.to_container(cfg, resolve=True))
        record.write()
    try:
        with notices:
            trainer.fit(module, data, ckpt_path=checkpoint_path, weights_only=True)
    except BaseException as error:
        if isinstance(error, Interrupted) and trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGKILL)  # the other ranks, which would wait for this one
        if main and not isinstance(error, FolderTaken):
            ended = {"status": "failed", "error": f"{type(error).__name__}: {error}".splitlines()[0]}
            if isinstance(error, Interrupted):  # before the first update, or a second SIGINT
                ended = {"status": "stopped", "signal": str(error)}
            with suppress(OSError):  # of a full disk, which must not hide the error
                record.write(**ended, **record.speed(metrics.row))
        if cfg.compile and is_of_compiler(error):
            raise ConfigError(f"compile=true: {type(error).__name__}: {error}".splitlines()[0]) from error
        raise
    signalled = stop.received is not None or trainer.received_sigterm  # the latter: before the first update
    stopped = signalled and module.steps < cfg.total_steps
    if main:
        record.write(status="stopped" if stopped else "done", signal=stop.received, **record.speed(metrics.row))
        if metrics.row:
            draw_curve(run_dir)
        if not stopped:
            conclude(cfg, agent, record, film)
    if stopped:
        stop.pass_on()
    return record.data


def draw_curve(run_dir: Path) -> None:
    """Draw the learning curve. If that fails, print a warning, since the run itself is complete."""
    try:
        learning_curve(run_dir)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        print(f"warning: {run_dir}/learning_curve.png is not drawn ({reason})", file=sys.stderr, flush=True)


def conclude(cfg: DictConfig, agent: CuriousAgent, record: RunRecord, film: Film | None) -> None:
    """Record the video of a trained agent and mark the run as complete."""
    run_dir = Path(cfg.run_dir)
    if cfg.video and film is not None:
        record.write(video=film(agent, cfg, run_dir / "video.mp4"))
    atomic_write(run_dir / DONE, lambda file: file.write(f"{record.data['env_steps']}\n".encode()))


def make_trainer(cfg: DictConfig, callbacks: list[L.Callback], data: SequenceData) -> L.Trainer:
    """Return Lightning's Trainer with the callbacks, which stops once `total_steps` are reached.

    Raises:
        ConfigError: for settings that the trainer does not accept, and for several devices in a sweep.
    """
    check_precision(cfg.trainer.get("precision"))
    loggers = [tolerant(instantiate(cfg.logger))] if "_target_" in cfg.logger else False
    with bad_input(cfg):
        trainer: L.Trainer = instantiate(
            cfg.trainer,
            callbacks=[StopAtBudget(cfg.total_steps), *callbacks],
            logger=loggers,
            max_epochs=-1,
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=cfg.run_dir,
            _convert_="all",
        )
    sharded = isinstance(trainer.strategy, FSDPStrategy | ModelParallelStrategy)
    if not (sharded and getattr(trainer.strategy, "_save_distributed_checkpoint", True)):  # these write their own files
        trainer.strategy.checkpoint_io = SealedFiles()
    if trainer.world_size > 1 and HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise ConfigError(f"trainer.devices={cfg.trainer.devices}: allowed in a sweep is 1")
    if isinstance(trainer.strategy, DDPStrategy):
        # statistics are reduced where they are updated; discounted sums of the reward normaliser differ between ranks
        trainer.strategy._ddp_kwargs.setdefault("broadcast_buffers", False)
        # minibatches of the policy alone have no gradient for the world model; those of the world model alone, above
        # the limit of the KL divergence, have none for the policy
        if data.batching.model_every > 1 or cfg.data.get("path") or cfg.policy.objective.get("kl_limit") is not None:
            trainer.strategy._ddp_kwargs.setdefault("find_unused_parameters", True)
    return trainer


def finished(
    cfg: DictConfig,
    agent: CuriousAgent,
    state: dict[str, Any],
    metrics: Metrics,
    record: RunRecord,
    film: Film | None,
) -> dict[str, Any]:
    """Complete a run without remaining steps: one that was done, or killed after its last checkpoint.

    Raises:
        ConfigError: for a checkpoint of another folder.
    """
    run_dir, before, steps = Path(cfg.run_dir), record.before, int(state["env_steps"] + agent.offline_steps)
    if before.get("status") == "done" and (run_dir / DONE).exists():
        print(f"done before: {steps:,} steps of total_steps={cfg.total_steps:,}")
        return before
    if before.get("status") not in ("running", "done"):
        raise ConfigError(f"total_steps={cfg.total_steps}: the checkpoint has {steps} steps already, allowed are more")
    agent.load_state_dict(state)
    row = {k: float(x or 0) for k, x in metrics.read()[-1].items() if k in ("env_steps", "offline_steps", "wall_s")}
    record.write(status="done", signal=None, **record.speed(row))
    draw_curve(run_dir)
    conclude(cfg, agent, record, film)
    return record.data


def find_checkpoint(cfg: DictConfig) -> str | None:
    """Return the checkpoint that a run resumes from, None for a new run.

    Raises:
        ConfigError: for checkpoint=auto without a folder, or with damaged checkpoints only.
    """
    if cfg.checkpoint is None:
        return None
    if cfg.checkpoint != "auto":
        return str(cfg.checkpoint)
    if not cfg.run_dir:
        raise ConfigError("checkpoint=auto: needs run_dir, the folder to look in")
    newest = newest_checkpoint(Path(cfg.run_dir) / "checkpoints")
    return newest and str(newest)


def continued(cfg: DictConfig, overrides: list[str]) -> DictConfig:
    """Return the configuration of the run that a checkpoint belongs to, with the overrides of this command.

    A command with checkpoint=auto and an experiment is complete by itself: its configuration is used unchanged.

    Raises:
        ConfigError: for an unreadable checkpoint, and for an experiment together with the path of a checkpoint.
    """
    path = find_checkpoint(cfg)
    if path is None:
        return cfg
    if cfg.checkpoint == "auto" and any(override.lstrip("+").startswith("experiment=") for override in overrides):
        cfg.checkpoint = path
        return cfg
    saved = OmegaConf.create(read_checkpoint(path)["config"])
    for override in overrides:
        key = override.lstrip("+~").split("=", 1)[0]
        if key == "experiment":
            raise ConfigError(f"{override}: not allowed with checkpoint=, whose run already has an experiment")
        OmegaConf.update(saved, key, OmegaConf.select(cfg, key), merge=False)
    for key in cfg.keys() - saved.keys():  # of groups that were added after the run
        saved[key] = cfg[key]
    saved.checkpoint = path
    saved.run_dir = cfg.run_dir or str(run_dir_of(path))
    return saved
