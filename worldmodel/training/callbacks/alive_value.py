"""Warning about an intrinsic reward that pays more for staying alive than the task pays for finishing."""

from __future__ import annotations

import sys
from typing import Any

import lightning as L

from worldmodel.learner.running_return import RunningReturn
from worldmodel.policy import Objective
from worldmodel.training.callbacks.metrics import Metrics


class AliveValue(L.Callback):
    """Warning, printed once in a run, that an episode that goes on is worth more than the largest return of the task.

    The value of staying alive is weight_int times the mean intrinsic reward over 1 - gamma_int. The task's value is
    weight_ext times the largest discounted extrinsic return that was seen. Both are in units of the weighted rewards
    that the policy learns from, which are scaled and clipped. The task's value follows the return scale. The comparison
    needs an intrinsic return that ends with the episode, and a positive return of the task.

    Checkpoints have `task_return`, the running returns of the agent (of the first rank).
    """

    def __init__(self, metrics: Metrics, objective: Objective, task_return: RunningReturn):
        self.metrics, self.objective, self.task_return = metrics, objective, task_return
        self.largest, self.scale = 0.0, 1.0  # task value so far, and the return scale whose unit it has
        self.warned = False

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        row = self.metrics.row
        self.largest = max(self.largest * self.scale / row["return_scale"], row["task_value"])
        self.scale, task = row["return_scale"], self.largest
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
        own = {"task_value": self.largest, "scale": self.scale, "warned": self.warned}
        return own | {"task_return": self.task_return.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.warned = state_dict["warned"]
        if "task_value" in state_dict:  # earlier checkpoints have another measure of the task
            self.largest, self.scale = state_dict["task_value"], state_dict["scale"]
            self.task_return.load_state_dict(state_dict["task_return"])
