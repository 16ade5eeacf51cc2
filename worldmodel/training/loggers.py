"""Loggers of experiment trackers: Lightning's with other defaults, and trackers that Lightning does not support."""

from __future__ import annotations

import os
import platform
import sys
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger, WandbLogger
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from worldmodel.errors import ConfigError


class Wandb(WandbLogger):
    """Weights & Biases. Its run ends with the training run, so that each run of a sweep gets a separate one."""

    def __init__(self, save_dir: str, project: str = "worldmodel", name: str | None = None, offline: bool = True):
        super().__init__(save_dir=save_dir, project=project, name=name, offline=offline)

    def finalize(self, status: str) -> None:
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if status == "success" else 1)
            self._experiment = None


class MLFlow(MLFlowLogger):
    """MLflow, with plain files (in MLflow 3 only on request) unless `tracking_uri` is a server or database."""

    def __init__(
        self, save_dir: str, experiment: str = "worldmodel", name: str | None = None, tracking_uri: str | None = None
    ):
        if tracking_uri is None:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        super().__init__(experiment_name=experiment, run_name=name, tracking_uri=tracking_uri, save_dir=save_dir)


class _Tracker(Logger):
    """Base class of trackers whose run starts with the first row of metrics and ends with the fit.

    A resumed training run is a new run of the tracker. Only the first rank logs.
    """

    def __init__(self, name: str):
        super().__init__()
        self._name = name
        self.config: dict[str, Any] = {}
        self.run: Any = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> str | None:
        return None

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        self.config |= params

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if self.run is None:
            self.run = self.begin()
        self.add(metrics, int(step or 0))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self.run is not None:
            self.end(status)
            self.run = None

    def begin(self) -> Any:
        """Start a run of the tracker and return it."""
        raise NotImplementedError

    def add(self, metrics: dict[str, float], step: int) -> None:
        """Log one row of metrics; `step` counts environment steps."""
        raise NotImplementedError

    def end(self, status: str) -> None:
        """End the run with Lightning's status of the fit."""
        raise NotImplementedError


class Sacred(_Tracker):
    """Sacred: a folder for each run under `save_dir`, or a document in the MongoDB at `url`.

    Sacred's observers receive the same events as from Sacred's own `Experiment`. Rows are sent every `beat_s` seconds,
    because a file observer rewrites all of its rows each time, and at the end.

    Raises ConfigError without the packages sacred and, for `url`, pymongo.
    """

    def __init__(
        self,
        save_dir: str,
        name: str = "worldmodel",
        url: str | None = None,
        database: str = "sacred",
        beat_s: float = 10.0,
    ):
        super().__init__(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecation of pkg_resources
            observers = _package("sacred.observers", "sacred")
            try:
                self.observer = (
                    observers.FileStorageObserver(save_dir)
                    if url is None
                    else observers.MongoObserver(url=url, db_name=database)
                )
            except ImportError as error:
                raise ConfigError(f"logger.url={url}: needs the package pymongo ({error})") from None
        self.beat_s = beat_s
        self.rows: list[tuple[int, datetime, dict[str, float]]] = []

    def begin(self) -> Any:
        self.beaten = time.monotonic()
        self.info: dict[str, Any] = {}
        about = {"name": self.name, "base_dir": os.getcwd(), "mainfile": None}
        about |= {key: [] for key in ("sources", "dependencies", "repositories")}  # run.json contains the packages
        system = [platform.system(), platform.platform()]
        host = {"hostname": platform.node(), "os": system, "python_version": platform.python_version()}
        meta = {"command": "train", "options": {}, "comment": " ".join(sys.argv[1:])}
        self.observer.started_event(about, "train", host, _now(), self.config, meta, None)
        return self.observer

    def add(self, metrics: dict[str, float], step: int) -> None:
        self.rows.append((step, _now(), metrics))
        if time.monotonic() - self.beaten >= self.beat_s:
            self.beat()

    def beat(self) -> None:
        """Send the rows since the last call to the observer."""
        grouped: dict[str, dict[str, Any]] = {}
        for step, when, metrics in self.rows:
            for key, value in metrics.items():
                entry = grouped.setdefault(key, {"name": key, "steps": [], "values": [], "timestamps": []})
                for column, x in (("steps", step), ("values", float(value)), ("timestamps", when)):
                    entry[column].append(x)
        self.observer.log_metrics(grouped, self.info)  # MongoDB's observer adds the location of each metric to `info`
        self.observer.heartbeat_event(self.info, "", _now(), None)
        self.rows, self.beaten = [], time.monotonic()

    def end(self, status: str) -> None:
        self.beat()
        if status == "success":
            self.observer.completed_event(_now(), None)
        elif status == "interrupted":
            self.observer.interrupted_event(_now(), "INTERRUPTED")
        else:
            self.observer.failed_event(_now(), [])
        self.observer.join()


class Trackio(_Tracker):
    """trackio, with one store for all runs.

    folder: the store. The environment variable TRACKIO_DIR takes precedence; trackio reads it once per process.
    space: a Hugging Face Space that receives the metrics instead.

    Raises ConfigError without the package trackio.
    """

    def __init__(self, folder: str, project: str = "worldmodel", name: str | None = None, space: str | None = None):
        super().__init__(name or project)
        os.environ.setdefault("TRACKIO_DIR", str(Path(folder).resolve()))
        self.trackio = _package("trackio", "trackio")
        self.project, self.run_name, self.space = project, name, space

    def begin(self) -> Any:
        return self.trackio.init(
            project=self.project,
            name=self.run_name,
            space_id=self.space,
            config=self.config,
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )

    def add(self, metrics: dict[str, float], step: int) -> None:
        self.run.log(metrics, step=step)

    def end(self, status: str) -> None:
        self.trackio.finish()


def tolerant(logger: Logger) -> Logger:
    """Return a logger whose errors, of a full disk or a server out of reach, end no run: it prints one warning.

    metrics.csv has the same figures. Bad input (ConfigError) is still an error.
    """
    warned = False

    def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal warned
            try:
                return method(*args, **kwargs)
            except ConfigError:
                raise
            except Exception as error:
                if not warned:
                    reason = f"{type(error).__name__}: {error}".splitlines()[0]
                    print(f"warning: logger {type(logger).__name__}: {reason}", file=sys.stderr, flush=True)
                warned = True

        return call

    for name in ("log_hyperparams", "log_metrics", "save", "finalize"):
        setattr(logger, name, guarded(getattr(logger, name)))
    return logger


def _package(module: str, package: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(f"logger={package}: needs the package {package} ({error})") from None


def _now() -> datetime:
    return datetime.now(UTC)
