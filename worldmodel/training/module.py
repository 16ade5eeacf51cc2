"""LightningModule that optimises an agent, clips its gradients and logs its losses."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import lightning as L
import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from worldmodel.curiosity import per_env_buffers
from worldmodel.distributed import gather_over_ranks, rank, sum_over_ranks, world_size
from worldmodel.errors import NonFiniteLoss
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.policy.actor_critic import scale_rows
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
        self.sums: dict[str, Tensor] = {}  # over the steps of this update, by name in metrics.csv
        self.counts: Counter[str] = Counter()
        self.model_in_step = False  # the world model has had losses since the last step of the optimizer
        self.parts = agent.clipped_parts()  # clipped separately
        self.value_head: list[torch.nn.Parameter] = []  # of the optimiser
        self.restored: dict[str, Tensor] = {}  # from a checkpoint: state per environment of this rank, by name

    @property
    def env_steps(self) -> int:
        """Number of environment steps so far, over all ranks."""
        return int(self.agent.env_steps)

    @property
    def steps(self) -> int:
        """Number of steps that `total_steps` limits, over all ranks: in environments and recorded ones."""
        return self.agent.steps

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
        if batch.value_ratio is not None:
            self._rescale_values(batch.value_ratio)
        terms, replayed, figures = self.agent.losses(batch)
        total = self.agent.weighted_sum(terms)
        good = total.detach().abs() < self.max_loss  # False for nan
        if sum_over_ranks(1.0 - good.float()):  # all ranks stop together, because the others would wait forever
            bad = [k for k, x in terms.items() if not torch.isfinite(x)]
            bad = bad or [
                "on another rank" if good else f"{float(total.detach()):.3g} with rollback.max_loss={self.max_loss:g}"
            ]
            raise NonFiniteLoss(f"loss is not finite at env_steps={self.env_steps}: {', '.join(bad)}")
        self.agent.record_step(figures)
        self._add({f"loss_{key}": x.detach() for key, x in terms.items()} | figures)
        self.model_in_step |= batch.model is not None
        return {"loss": total, "replayed": replayed}

    def _add(self, figures: Mapping[str, Tensor]) -> None:
        """Add scalars to the sums of this update."""
        for key, x in figures.items():
            self.sums[key] = self.sums[key] + x if key in self.sums else x
            self.counts[key] += 1

    def _drop_moments(self, parameters: Any) -> None:
        """Drop the optimiser's moments of re-initialised parameters. Its next step creates new ones."""
        if parameters:
            drop_moments(self.trainer.optimizers, parameters)

    def _rescale_values(self, ratio: Tensor) -> None:
        """Let the optimiser's moments follow a rescaled value head, so that its steps stay as large as they were.

        The gradient of the rescaled head is multiplied by the ratio, its square by the square. Of sharded parameters
        the agent rescaled a gathered copy, which is dropped after the backward pass.
        """
        first = torch.stack([ratio, torch.ones_like(ratio)])
        for parameter in self.value_head:
            if isinstance(parameter, DTensor):
                with torch.no_grad():
                    scale_rows(parameter, first)
        rescale_moments(self.trainer.optimizers if self._trainer else [], self.value_head, first)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients of world model, policy encoder, actor, critic and curiosity each by their own norm.

        Large losses of a part then do not slow the other parts down, and the policy's step does not depend on whether
        the world model takes a step as well.
        """
        by_norm = gradient_clip_val and gradient_clip_algorithm != "value"
        for name, parameters in self.parts.items():
            if grads := [p.grad for p in parameters if p.grad is not None]:
                norm = torch.nn.utils.get_total_norm(grads)
                self._add({f"grad_norm_{name}": norm.full_tensor() if isinstance(norm, DTensor) else norm})
                if by_norm:
                    torch.nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, norm)
        if not by_norm:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.model_in_step:
            self.agent.after_step()
        self.model_in_step = False

    def report(self) -> dict[str, float]:
        """Return the metrics of this update by their names in metrics.csv, and reset the sums.

        `entropy` is nan if the objective has no loss of that name.
        """
        totals = torch.stack([x.double() for x in self.sums.values()]).tolist() if self.sums else []
        means = {key: x / self.counts[key] for key, x in zip(self.sums, totals, strict=True)}
        self.sums, self.counts = {}, Counter()
        return self.agent.metrics | {"entropy": -means.pop("loss_entropy", math.nan)} | means

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"], checkpoint["format"] = self.config, FORMAT
        checkpoint["env_spec"] = self.agent.env_spec and self.agent.env_spec.to_dict()
        if world_size() > 1:  # the state of the module is that of the first rank
            own = {name: x.cpu() for name, x in per_env_buffers(self.agent).items()}
            checkpoint["per_env"] = gather_over_ranks(own)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        ranks = checkpoint.get("per_env", [])
        self.restored = ranks[rank()] if len(ranks) == world_size() else {}
        if "state_dict" in checkpoint:  # a sharded checkpoint has its own files
            checkpoint["state_dict"] = with_own_environments(checkpoint["state_dict"], self.agent, prefix="agent.")

    def on_train_start(self) -> None:
        """Restore this rank's state of the environments, after every rank has restored that of the first."""
        for name, x in per_env_buffers(self.agent).items():
            if name in self.restored and self.restored[name].shape == x.shape:
                x.copy_(self.restored[name])
        self.restored = {}

    def configure_optimizers(self) -> Any:
        self.parts = self.agent.clipped_parts()
        self.value_head = list(self.agent.policy.critic.parameters())
        return self.make_optimizer(self.agent)


def drop_moments(optimizers: list[torch.optim.Optimizer], parameters: list[torch.nn.Parameter]) -> None:
    """Delete the state of some parameters from optimisers."""
    for optimizer in optimizers:
        for parameter in parameters:
            optimizer.state.pop(parameter, None)


def rescale_moments(
    optimizers: list[torch.optim.Optimizer], parameters: list[torch.nn.Parameter], factors: Tensor
) -> None:
    """Rescale the optimisers' moments of parameters whose rows' gradients are multiplied by factors (rows,)."""
    for optimizer in optimizers:
        for parameter in parameters:
            for name, moment in optimizer.state.get(parameter, {}).items():
                if power := _MOMENTS.get(name):
                    scale_rows(moment, factors**power)


_MOMENTS = {"exp_avg": 1, "momentum_buffer": 1, "exp_avg_sq": 2, "max_exp_avg_sq": 2}
