"""Priorities of the replay, from the outputs of each training step."""

from __future__ import annotations

from typing import Any

import lightning as L

from worldmodel.experience.replay import Replay
from worldmodel.experience.stream import ExperienceStream
from worldmodel.types import Minibatch


class ReplayPriorities(L.Callback):
    """Update of the replay's priorities with the prediction errors of replayed sequences."""

    def __init__(self, stream: ExperienceStream):
        self.stream = stream

    @property
    def replay(self) -> Replay:
        """The replay of this rank."""
        return self.stream.replay

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: dict[str, Any],
        batch: Minibatch,
        batch_idx: int,
    ) -> None:
        if batch.replayed is not None:
            self.replay.update_priorities(batch.replayed, outputs["replayed"])
