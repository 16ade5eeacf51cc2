"""Run folders: their names, and whether a run may write into one that holds another run."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from worldmodel.errors import ConfigError
from worldmodel.training.checkpoint import run_dir_of

DONE = "DONE"  # file that marks a run as complete
RUN_DIR = "WORLDMODEL_RUN_DIR"  # variable with the run folder, for the ranks that Lightning launches
FILES = ("config.yaml", "run.json", "metrics.csv", "metrics.damaged.csv", DONE, "learning_curve.png", "video.mp4",
         "report.json", "report.html", "checkpoints", "actions", "tensorboard")  # fmt: skip
"""What a run and its evaluation leave; `overwrite=true` removes these and nothing else."""
_RUN = ("config.yaml", "run.json", "metrics.csv", "checkpoints")  # one of these: the folder holds a run
_SAME_RUN = {"checkpoint", "logger", "overwrite", "preemption", "run_dir", "save", "threads", "video"}
"""Keys whose values do not make another run."""


def make_run_dir(cfg: DictConfig) -> Path:
    """Return the run folder: `run_dir`, or a new folder named by time and seed, which is created.

    Raises:
        ConfigError: without `run_dir` if another program starts several ranks, and if a new folder cannot be created.
    """
    if cfg.run_dir is not None:
        if str(cfg.run_dir) == "":
            raise ConfigError("run_dir=: allowed are null and a path")
        return Path(str(cfg.run_dir))
    if "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", 1)) > 1:  # one process of several
        if RUN_DIR not in os.environ:
            raise ConfigError("run_dir=null: must be given where torchrun or a cluster starts the processes")
        return Path(os.environ[RUN_DIR])
    stem = Path("runs") / str(cfg.name) / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_seed{cfg.seed}"
    path, copy = stem, 1
    while not _create(path):
        copy += 1
        path = stem.with_name(f"{stem.name}_{copy}")
    os.environ[RUN_DIR] = str(path)
    return path


def _create(path: Path) -> bool:
    """Create a folder; return False if it exists, for example by a run that started in the same second."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        return not path.parent.is_dir() and _fail(path, "File exists")
    except OSError as error:
        return _fail(path, error.strerror)
    return True


def _fail(path: Path, reason: str) -> bool:
    raise ConfigError(f"run_dir={path}: cannot be created ({reason})") from None


@contextmanager
def only_if_used(run_dir: Path, new: bool = False) -> Iterator[None]:
    """Create a folder, and remove it after an error if it is new and empty.

    Args:
        run_dir: the folder.
        new: it was created for this run already.

    Raises:
        ConfigError: if the folder cannot be created.
    """
    new = new or not run_dir.exists()
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _fail(run_dir, error.strerror)
    try:
        yield
    except BaseException:
        if new:
            with suppress(OSError):  # not empty
                run_dir.rmdir()
        raise


def refuse_another_run(cfg: DictConfig, checkpoint_path: str | Path | None, run_dir: Path) -> None:
    """Refuse a new run in a folder that holds a run, unless it is to be overwritten.

    A run from a checkpoint of the same folder is not new, nor is one with checkpoint=auto and the configuration of the
    folder's run.

    Raises:
        ConfigError: with what is allowed.
    """
    if cfg.overwrite or not any((run_dir / name).exists() for name in _RUN):
        return
    if is_same_run(checkpoint_path, run_dir):
        return
    holds, allowed = "a run", "checkpoint=auto (resumes it), overwrite=true (removes it) and another folder"
    if checkpoint_path is None and cfg.checkpoint == "auto":
        differ = _differing(cfg, run_dir / "config.yaml")
        if not differ:
            return
        holds, allowed = f"a run with another {', '.join(differ[:3])} and no checkpoint", allowed.partition(", ")[2]
    raise ConfigError(f"run_dir={run_dir}: holds {holds}, allowed are {allowed}")


def is_same_run(checkpoint_path: str | Path | None, run_dir: Path) -> bool:
    """Return whether a checkpoint is one of the run in this folder."""
    return checkpoint_path is not None and run_dir_of(checkpoint_path) == run_dir.resolve()


def _differing(cfg: DictConfig, path: Path) -> list[str]:
    """Return the keys whose values differ from those of a run's config.yaml; none if that is missing or unreadable."""
    try:
        saved: Any = OmegaConf.to_container(OmegaConf.load(path))
    except Exception:  # of a killed process, or a damaged file
        return []
    if not isinstance(saved, dict):
        return []
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    here, there = (_flat({k: v for k, v in x.items() if k not in _SAME_RUN}) for x in (plain, saved))
    return sorted(k for k in here.keys() | there.keys() if here.get(k) != there.get(k))


def _flat(node: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {path: node}
    return {k: v for key, x in node.items() for k, v in _flat(x, f"{path}.{key}" if path else str(key)).items()}


def remove_run(run_dir: Path) -> None:
    """Remove the files of a run and of its evaluation; see FILES. Others stay."""
    for path in (run_dir / name for name in FILES):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
