"""Re-initialisation of parts of the agent during training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lightning as L
import torch

from worldmodel.errors import check_range
from worldmodel.learner.curious_agent import RESETTABLE, CuriousAgent
from worldmodel.training.callbacks.metrics import Metrics
from worldmodel.training.module import drop_moments


class Resets(L.Callback):
    """Re-initialisation of `parts`, with the parameters of a new agent.

    It happens every `every` updates, or whenever `metric` has not risen by `min_change` for `patience` updates, at most
    `times` times. The optimiser's moments of these parameters are dropped.

    A network that is first trained on few, unrepresentative steps learns worse from later ones (Nikishin et al. 2022,
    "The Primacy Bias in Deep Reinforcement Learning", arXiv 2205.07802). The encoder and its target, the replay,
    running statistics, networks without training and the schedule of the learning rate are kept.

    Raises ValueError for unknown parts, and unless exactly one of `every` and `patience` is given.
    """

    def __init__(
        self,
        metrics: Metrics,
        make_agent: Callable[[], CuriousAgent],
        seed: int,
        parts: list[str],
        every: int | None = None,
        patience: int | None = None,
        metric: str = "return_ext",
        min_change: float = 0.0,
        times: int | None = None,
    ):
        if not parts or set(parts) - set(RESETTABLE):
            raise ValueError(f"resets.parts={list(parts)}: allowed are lists of {', '.join(RESETTABLE)}")
        if (every is None) == (patience is None):
            raise ValueError(f"resets.every={every}, resets.patience={patience}: allowed is null for one of them")
        for key, value in (("every", every), ("patience", patience), ("times", times)):
            check_range(f"resets.{key}", value, "[1, inf)", whole=True, null=True)
        self.metrics, self.make_agent, self.seed, self.parts = metrics, make_agent, seed, tuple(parts)
        self.every, self.patience, self.metric, self.min_change = every, patience, metric, min_change
        self.times = math.inf if times is None else times
        self.best, self.waited, self.count = -math.inf, 0, 0

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        due = trainer.strategy.reduce_boolean_decision(self._due(trainer.current_epoch + 1), all=False)
        if due and self.count < self.times:  # all ranks together
            self.reset(pl_module.agent, trainer.optimizers)
            if trainer.is_global_zero:
                print(f"reset {', '.join(self.parts)} at env_steps={self.metrics.row['env_steps']}", flush=True)

    def _due(self, updates: int) -> bool:
        if self.every is not None:
            return updates % self.every == 0
        if self.metric not in self.metrics.row:
            raise ValueError(f"resets.metric={self.metric}: allowed are {', '.join(self.metrics.row)}")
        value = self.metrics.row[self.metric]
        if math.isnan(value):  # no episode has ended yet
            return False
        if value > self.best + self.min_change:
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        return self.waited >= self.patience

    def reset(self, agent: CuriousAgent, optimizers: list[torch.optim.Optimizer]) -> None:
        """Re-initialise the parts. The parameters depend on the seed and the number of earlier resets alone."""
        self.count += 1
        self.best, self.waited = -math.inf, 0  # a fresh part performs worse at first
        with torch.random.fork_rng([]):  # on the CPU, where agents are created
            torch.manual_seed(((self.seed + 1) * 1_000_003 + self.count) % 2**63)
            fresh = self.make_agent()
        drop_moments(optimizers, agent.reinitialise(self.parts, fresh))

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited, "count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.waited, self.count = (state_dict[key] for key in ("best", "waited", "count"))
