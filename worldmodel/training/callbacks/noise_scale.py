"""Gradient noise scale of the world model and of the policy, an estimate of the largest useful batch."""

from __future__ import annotations

import math
from collections import Counter
from contextlib import AbstractContextManager
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from worldmodel.errors import check_range
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.types import Minibatch

MODULES = ("model", "policy")


class NoiseScale(L.Callback):
    """Metrics `noise_scale_model` in sequences and `noise_scale_policy` in steps of the policy.

    The simple noise scale tr(Sigma) / |G|^2 (McCandlish et al. 2018, arXiv 1812.06162, appendix A.1) is the batch size
    at which noise and gradient are equally large: far smaller batches are mostly noise, far larger ones waste samples.
    It is nan if the estimate of |G|^2 is not positive.

    Every `every` steps of the optimiser, before clipping, the squared norm of the gradient is measured at two batch
    sizes: of one rank and of all ranks, of the first microbatch and of all accumulated ones, or else of every other
    sample of the minibatch and of all samples, which costs half a pass more. Unbiased estimates of |G|^2 and
    tr(Sigma) are averaged separately (exponentially, with `decay`), because their ratio is biased.

    A sequence counts as one sample, regardless of its masked steps; so does a single step of the policy, or a sequence
    if its gradient reaches the memory. The gradient is that of the joint loss with respect
    to the parameters of the world model or of the policy. Nothing is measured with sharded parameters, nor for a module
    with one sample.

    Raises ConfigError for values out of range.
    """

    def __init__(self, every: int = 32, decay: float = 0.9):
        check_range("noise_scale.every", every, "[1, inf)", whole=True)
        check_range("noise_scale.decay", decay, "[0, 1)")
        self.every, self.decay = every, decay
        self.averages = {part: torch.zeros(2) for part in MODULES}  # of |G|^2 and tr(Sigma), with equal decay
        self.last = -every  # the step of the last measurement
        self.count = 0  # of measurements
        self._begin()

    def _begin(self) -> None:
        """Reset the measurements of one optimiser step."""
        self.turns: Counter[str] = Counter()  # microbatches with a gradient of the module
        self.sizes: Counter[str] = Counter()  # samples in them
        self.small: dict[str, tuple[Tensor, int]] = {}  # squared norm at the smaller size, and that size
        self.local = {part: torch.zeros(()) for part in MODULES}  # squared norm of this rank's own gradient

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.on = isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy)
        self.averages = {part: x.to(pl_module.device) for part, x in self.averages.items()}
        self.due = False
        if trainer.world_size > 1 and self.on:
            self.part_of = {id(p): part for part in MODULES for p in getattr(pl_module.agent, part).parameters()}
            trainer.strategy.model.register_comm_hook(None, lambda _, bucket: self._reduce(bucket))

    def _reduce(self, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        """Average gradients over ranks as DDP does, and add up the squared norm of this rank's gradient."""
        if self.due:
            for parameter, grad in zip(bucket.parameters(), bucket.gradients(), strict=True):
                if part := self.part_of.get(id(parameter)):
                    self.local[part] = self.local[part].to(grad.device) + grad.float().square().sum()
        return allreduce_hook(dist.group.WORLD, bucket)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Minibatch, batch_idx: int
    ) -> None:
        self.batch = batch
        self.due = self.on and trainer.global_step - self.last >= self.every and batch.policy is not None

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.due:
            return
        for part in MODULES:
            if (roll := getattr(self.batch, part)) is None:
                continue
            if not self.turns[part] and trainer.accumulate_grad_batches > 1 and trainer.world_size == 1:
                square = _square(_gradients(pl_module.agent, part)) * trainer.accumulate_grad_batches**2
                self.small[part] = (square, len(roll))
            self.turns[part] += 1
            self.sizes[part] += len(roll)

    @torch.no_grad()
    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if self.due and self.turns["model"]:
            self._measure(trainer, pl_module.agent)
            self.last, self.count = trainer.global_step, self.count + 1
        self._begin()

    def _measure(self, trainer: L.Trainer, agent: CuriousAgent) -> None:
        ranks, accumulated = trainer.world_size, trainer.accumulate_grad_batches
        small = self.small
        if ranks == accumulated == 1:
            small = self._half(trainer.precision_plugin.forward_context(), agent)
        for part in MODULES:
            scale = (accumulated / max(self.turns[part], 1)) ** 2  # microbatches without the module count as zeros
            if ranks > 1:
                square = self.local[part].to(agent.device)
                dist.all_reduce(square)
                small[part] = (square / ranks * scale, self.sizes[part])
            if part in small and small[part][1] < (size := self.sizes[part] * ranks):
                found = noise_and_signal(*small[part], _square(_gradients(agent, part)) * scale, size)
                self.averages[part].lerp_(found, 1 - self.decay)

    def _half(self, context: AbstractContextManager[None], agent: CuriousAgent) -> dict[str, tuple[Tensor, int]]:
        """Measure the gradient of every other sample, alternating between even and odd ones."""
        batch, first = self.batch, self.count % 2
        if len(batch.policy) < 2 and agent.policy.memory_gradient:
            return {}  # the first sequences of the world model are those of the policy
        half = Minibatch(*(x[first::2] if len(x) > 1 else x for x in (batch.model, batch.policy)))
        wanted = {part: [p for p in getattr(agent, part).parameters() if p.requires_grad] for part in MODULES}
        devices = [agent.device] if agent.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.enable_grad(), context:
            # losses that draw random numbers leave the generators unchanged
            loss = agent.weighted_sum(agent.losses(half).terms)
            found = torch.autograd.grad(loss, [*wanted["model"], *wanted["policy"]], allow_unused=True)
        cut = len(wanted["model"])
        return {
            part: (_square([g for g in grads if g is not None]), len(getattr(half, part)))
            for part, grads in (("model", found[:cut]), ("policy", found[cut:]))
        }

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pl_module.agent.metrics |= {f"noise_scale_{part}": self.value(part) for part in MODULES}

    def value(self, part: str) -> float:
        """Return the noise scale of a module in samples; nan if |G|^2 is not positive."""
        signal, noise = self.averages[part].tolist()
        return max(noise, 0.0) / signal if signal > 0 else math.nan

    def state_dict(self) -> dict[str, Any]:
        averages = {part: x.tolist() for part, x in self.averages.items()}
        return {"averages": averages, "last": self.last, "count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.averages = {part: torch.tensor(x) for part, x in state_dict["averages"].items()}
        self.last, self.count = state_dict["last"], state_dict["count"]


def noise_and_signal(small: Tensor, small_size: int, big: Tensor, big_size: int) -> Tensor:
    """Return unbiased estimates of (|G|^2, tr(Sigma)), (2,), from squared norms of gradients at two batch sizes.

    Solves E|G_B|^2 = |G|^2 + tr(Sigma) / B for both (arXiv 1812.06162, appendix A.1).
    """
    signal = (big_size * big - small_size * small) / (big_size - small_size)
    noise = (small - big) / (1 / small_size - 1 / big_size)
    return torch.stack([signal, noise])


def _gradients(agent: CuriousAgent, part: str) -> list[Tensor]:
    return [p.grad for p in getattr(agent, part).parameters() if p.grad is not None]


def _square(gradients: list[Tensor]) -> Tensor:
    return torch.nn.utils.get_total_norm(gradients).float().square()
