"""Stop of a run whose folder another process has taken."""

from __future__ import annotations

import lightning as L

from worldmodel.training.run_lock import FolderTaken, RunLock


class StopIfTaken(L.Callback):
    """Check after each update that this process still owns the run folder: one small read.

    A process that was suspended for longer than `run_lock.STALE_S` can have lost it.
    """

    def __init__(self, lock: RunLock):
        self.lock = lock

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Raise FolderTaken if the folder has another owner."""
        if self.lock.lost:
            raise FolderTaken(f"run_dir={self.lock.run_dir}: taken by another process while this one was suspended")
