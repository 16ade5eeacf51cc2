"""Warning about a collapsing latent space."""

from __future__ import annotations

import sys
from typing import Any

import lightning as L

from worldmodel.training.callbacks.metrics import Metrics


class CollapseGuard(L.Callback):
    """Warning, printed once in a run, that the target latents are collapsing.

    Their standard deviation and effective rank over the steps of a rollout are compared with those of the first
    rollout, which the untrained encoder encoded. They collapse when the standard deviation falls below `std_share` of
    its first value, or the rank below `rank_share` of its first value or below `rank`. Prediction errors are then small
    for every observation.
    """

    def __init__(self, metrics: Metrics, std_share: float = 0.2, rank_share: float = 0.1, rank: float = 1.2):
        self.metrics, self.std_share, self.rank_share, self.rank = metrics, std_share, rank_share, rank
        self.first: dict[str, float] | None = None
        self.warned = False

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        std, rank = (self.metrics.row[key] for key in ("latent_std", "latent_rank"))
        if self.first is None:
            self.first = {"std": std, "rank": rank}
        first = self.first
        causes = []
        if std < self.std_share * first["std"]:
            causes.append(f"latent_std {std:.2g}, {first['std']:.2g} at initialisation")
        if rank < max(self.rank, self.rank_share * first["rank"]):
            causes.append(f"latent_rank {rank:.1f}, {first['rank']:.1f} at initialisation")
        if causes and not self.warned and trainer.is_global_zero:
            self.warned = True
            print(
                f"warning: the latent space is collapsing at env_steps={self.metrics.row['env_steps']}: "
                f"{'; '.join(causes)}; prediction errors mean little now, use another target or a larger weight of its "
                "regulariser",
                file=sys.stderr,
                flush=True,
            )

    def state_dict(self) -> dict[str, Any]:
        return {"first": self.first, "warned": self.warned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.first, self.warned = state_dict["first"], state_dict["warned"]
