"""Warning about a collapsing latent space."""

from __future__ import annotations

import sys

import lightning as L

from worldmodel.training.callbacks.metrics import Metrics


class CollapseGuard(L.Callback):
    """Warning, printed once, that the target latents are collapsing.

    They collapse when their standard deviation falls below `share` of its first value or their effective rank below
    `rank`. Prediction errors are then small for every observation.
    """

    def __init__(self, metrics: Metrics, share: float = 0.01, rank: float = 1.2):
        self.metrics, self.share, self.rank = metrics, share, rank
        self.first: float | None = None
        self.warned = False

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        row = self.metrics.row
        self.first = row["latent_std"] if self.first is None else self.first
        dead = row["latent_std"] < self.share * self.first or row["latent_rank"] < self.rank
        if dead and not self.warned and trainer.is_global_zero:
            self.warned = True
            print(
                f"warning: the latent space is collapsing at env_steps={row['env_steps']}: latent_std "
                f"{row['latent_std']:.2g} (was {self.first:.2g}), latent_rank {row['latent_rank']:.1f}; "
                "prediction errors mean nothing now, try another target",
                file=sys.stderr,
                flush=True,
            )
