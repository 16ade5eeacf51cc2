"""Warning about an intrinsic reward that pays more for staying alive than the task pays for finishing."""

from __future__ import annotations

import sys
from typing import Any

import lightning as L

from worldmodel.policy import Objective
from worldmodel.training.callbacks.metrics import Metrics


class AliveValue(L.Callback):
    """Warning, printed once in a run, that an episode that goes on is worth more than the largest return of the task.

    The value of staying alive is weight_int times the mean intrinsic reward over 1 - gamma_int. The task's value is
    weight_ext times the largest discounted extrinsic return that was seen, in units of the return scale. Both are in
    units of the weighted rewards. The comparison needs an intrinsic return that ends with the episode, and a positive
    return of the task.
    """

    def __init__(self, metrics: Metrics, objective: Objective):
        self.metrics, self.objective = metrics, objective
        self.largest = 0.0  # discounted extrinsic return, in the environment's units
        self.warned = False

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        row = self.metrics.row
        self.largest = max(self.largest, row["max_return_ext"])
        task = self.objective.weight_ext * self.largest / row["return_scale"]
        alive = row["alive_value"]
        if self.warned or not self.objective.episodic_int or not 0 < task < alive or not trainer.is_global_zero:
            return
        self.warned = True
        print(
            f"warning: staying alive is worth {alive:.2g} in intrinsic reward and the task at most {task:.2g} at "
            f"env_steps={row['env_steps']:.0f}; the policy may avoid the end of episodes: use a smaller "
            "policy.objective.gamma_int or reward.scale, or policy.objective.episodic_int=false",
            file=sys.stderr,
            flush=True,
        )

    def state_dict(self) -> dict[str, Any]:
        return {"largest": self.largest, "warned": self.warned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.largest, self.warned = state_dict["largest"], state_dict["warned"]
