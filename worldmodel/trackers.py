"""Lightning's loggers for trackers, where they need a word more."""

from __future__ import annotations

import os

from lightning.pytorch.loggers import MLFlowLogger, WandbLogger


class Wandb(WandbLogger):
    """Weights & Biases; ends its run with ours, so that the next one of a sweep gets one of its own."""

    def __init__(self, save_dir: str, project: str = "worldmodel", name: str | None = None, offline: bool = True):
        super().__init__(save_dir=save_dir, project=project, name=name, offline=offline)

    def finalize(self, status: str) -> None:
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if status == "success" else 1)
            self._experiment = None


class MLFlow(MLFlowLogger):
    """MLflow, into plain files unless `tracking_uri` is a server or a database: MLflow 3 must be asked for files."""

    def __init__(
        self, save_dir: str, experiment: str = "worldmodel", name: str | None = None, tracking_uri: str | None = None
    ):
        if tracking_uri is None:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        super().__init__(experiment_name=experiment, run_name=name, tracking_uri=tracking_uri, save_dir=save_dir)
