"""LightningModule that optimises an agent, clips its gradients and logs its losses."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import lightning as L
import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from worldmodel.distributed import sum_over_ranks
from worldmodel.errors import NonFiniteLoss
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.training.checkpoint import FORMAT
from worldmodel.training.resume import with_own_environments
from worldmodel.training.sharding import shard
from worldmodel.types import Minibatch

T = TypeVar("T")


class TrainingModule(L.LightningModule):
    """Training of a `CuriousAgent`.

    Args:
        agent: the agent.
        make_optimizer: agent -> optimiser and schedule, in Lightning's format.
        config: stored in every checkpoint, so that the file alone is enough to act.
        max_loss: a loss of this size counts as not finite; see `Rollback`.
    """

    def __init__(
        self,
        agent: CuriousAgent,
        make_optimizer: Callable[[CuriousAgent], Any],
        config: dict[str, Any] | None = None,
        max_loss: float = math.inf,
    ):
        super().__init__()
        self.agent, self.make_optimizer, self.config, self.max_loss = agent, make_optimizer, config or {}, max_loss
        self.sums: dict[str, Tensor] = {}  # over the steps of this update, by loss
        self.counts: Counter[str] = Counter()
        self.model_in_step = False  # the world model has had losses since the last step of the optimizer

    @property
    def env_steps(self) -> int:
        """Number of environment steps so far, over all ranks."""
        return int(self.agent.env_steps)

    def configure_model(self) -> None:
        """Shard the parameters if the strategy requires it; called by Lightning."""
        if self._device_mesh is not None and not isinstance(self, FSDPModule):
            shard(self, self._device_mesh["data_parallel"])

    def with_full_weights(self, do: Callable[[], T]) -> T:
        """Call a function that reads weights outside of a training step; sharded weights are gathered for the call."""
        return do()

    def training_step(self, batch: Minibatch, batch_idx: int) -> dict[str, Any]:
        """Return the joint loss, and the prediction errors of replayed sequences (R,) for the replay's priorities.

        Raises:
            NonFiniteLoss: on all ranks, if the loss of any rank is not finite or not below `max_loss`.
        """
        self._drop_moments(batch.reset)
        terms, replayed = self.agent.losses(batch)
        total = self.agent.weighted_sum(terms)
        good = total.detach().abs() < self.max_loss  # False for nan
        if sum_over_ranks(1.0 - good.float()):  # all ranks stop together, because the others would wait forever
            bad = [k for k, x in terms.items() if not torch.isfinite(x)]
            bad = bad or [
                "on another rank" if good else f"{float(total.detach()):.3g} with rollback.max_loss={self.max_loss:g}"
            ]
            raise NonFiniteLoss(f"loss is not finite at env_steps={self.env_steps}: {', '.join(bad)}")
        for key, x in terms.items():
            self.sums[key] = self.sums.get(key, 0.0) + x.detach()
            self.counts[key] += 1
        self.model_in_step |= batch.model is not None
        return {"loss": total, "replayed": replayed}

    def _drop_moments(self, parameters: Any) -> None:
        """Drop the optimiser's moments of re-initialised parameters. Its next step creates new ones."""
        if parameters:
            drop_moments(self.trainer.optimizers, parameters)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients of world model, policy and curiosity each by their own norm.

        Large losses of a signal then do not slow the other parts down, and the policy's step does not depend on whether
        the world model takes a step as well.
        """
        if gradient_clip_algorithm == "value":
            return self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        if gradient_clip_val:
            for part in (self.agent.model, self.agent.policy, self.agent.curiosity):
                if parameters := list(part.parameters()):
                    torch.nn.utils.clip_grad_norm_(parameters, gradient_clip_val)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.model_in_step:
            self.agent.after_step()
        self.model_in_step = False

    def report(self) -> dict[str, float]:
        """Return the metrics of this update by their names in metrics.csv, and reset the sums.

        `entropy` is nan if the objective has no loss of that name.
        """
        losses = {f"loss_{key}": float(x) / self.counts[key] for key, x in self.sums.items()}
        self.sums, self.counts = {}, Counter()
        return self.agent.metrics | {"entropy": -losses.pop("loss_entropy", math.nan)} | losses

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "state_dict" in checkpoint:  # a sharded checkpoint has its own files
            state = checkpoint["state_dict"]
            ranks = checkpoint.get("SequenceData", {}).get("per_env", [])
            if len(ranks) == self.trainer.world_size:  # state_dict has that of the first rank
                state = {**state, **ranks[self.trainer.global_rank]}
            checkpoint["state_dict"] = with_own_environments(state, self.agent, prefix="agent.")

    def per_env_state(self) -> dict[str, Tensor]:
        """Return the state that this rank keeps for each of its environments, by name in `state_dict`."""
        own = dict(self.agent.named_buffers())
        return {f"agent.{name}": own[name].cpu() for name in self.agent.per_env_buffers()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"], checkpoint["format"] = self.config, FORMAT

    def configure_optimizers(self) -> Any:
        return self.make_optimizer(self.agent)


def drop_moments(optimizers: list[torch.optim.Optimizer], parameters: list[torch.nn.Parameter]) -> None:
    """Delete the state of some parameters from optimisers."""
    for optimizer in optimizers:
        for parameter in parameters:
            optimizer.state.pop(parameter, None)
