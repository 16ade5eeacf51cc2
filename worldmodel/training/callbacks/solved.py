"""Stop of a run at a given return."""

from __future__ import annotations

import lightning as L

from worldmodel.training.callbacks.metrics import Metrics


class StopWhenSolved(L.Callback):
    """Stop once return_ext, the mean over the last episodes, is at least `stop_return`; None: never."""

    def __init__(self, metrics: Metrics, stop_return: float | None):
        self.metrics, self.stop_return = metrics, stop_return

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # nan before the first episode has ended compares as False; all ranks stop together
        solved = self.stop_return is not None and self.metrics.row["return_ext"] >= self.stop_return
        if trainer.strategy.reduce_boolean_decision(solved, all=False):
            trainer.should_stop = True
