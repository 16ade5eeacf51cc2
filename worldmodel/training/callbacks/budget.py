"""Stop of a run at its number of environment steps."""

from __future__ import annotations

import lightning as L


class StopAtBudget(L.Callback):
    """Stop after the first update at which the steps of all ranks, real or recorded, reach `total_steps`.

    Steps are counted by the agent, so that a run may resume with another rollout length, number of environments or
    number of ranks. All ranks have the same count.
    """

    def __init__(self, total_steps: int):
        self.total_steps = total_steps

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if pl_module.steps >= self.total_steps:
            trainer.should_stop = True
