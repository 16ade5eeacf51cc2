"""How large a batch is worth its while: the gradient noise scale of the world model and of the policy."""

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

PARTS = ("model", "policy")


class NoiseScale(L.Callback):
    """Logs `noise_scale_model` and `noise_scale_policy`, in sequences: tr(Sigma) / |G|^2, the simple noise scale of
    McCandlish et al. 2018 (arXiv 1812.06162, appendix A.1). Batches far smaller than it are mostly noise, and larger
    ones learn more a step; far larger ones waste samples. nan where the gradient can't be told from noise.

    Every `every` steps of the optimiser the squared norm of the gradient is taken at two batch sizes, before clipping:
    of one rank's share and of all (several ranks), of the first microbatch and of all (accumulation), or else of
    every other sequence of the minibatch and of all of it, which costs half a pass more. Unbiased estimates of |G|^2
    and tr(Sigma) are averaged apart, `decay` of the old average staying each time, since their ratio is biased.

    A sequence counts as one sample, however much of it is masked. The gradient is that of the joint loss, by the part
    whose parameters it reaches. Nothing is measured where parameters are sharded, nor of a part with one sequence.
    """

    def __init__(self, every: int = 32, decay: float = 0.9):
        check_range("noise_scale.every", every, "[1, inf)", whole=True)
        check_range("noise_scale.decay", decay, "[0, 1)")
        self.every, self.decay = every, decay
        self.averages = {part: torch.zeros(2) for part in PARTS}  # of |G|^2 and of tr(Sigma), with the same weights
        self.last = -every  # the step of the last measurement
        self.count = 0  # of measurements
        self._begin()

    def _begin(self) -> None:
        """A new step of the optimiser."""
        self.turns: Counter[str] = Counter()  # microbatches that reached the part
        self.sizes: Counter[str] = Counter()  # sequences in them
        self.small: dict[str, tuple[Tensor, int]] = {}  # squared norm at the smaller size, and that size
        self.local = {part: torch.zeros(()) for part in PARTS}  # squared norm of this rank's own gradient

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.on = isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy)
        self.averages = {part: x.to(pl_module.device) for part, x in self.averages.items()}
        self.due = False
        if trainer.world_size > 1 and self.on:
            self.part_of = {id(p): part for part in PARTS for p in getattr(pl_module.agent, part).parameters()}
            trainer.strategy.model.register_comm_hook(None, lambda _, bucket: self._reduce(bucket))

    def _reduce(self, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        """DDP's own averaging over ranks; looks at each gradient before."""
        if self.due:
            for parameter, grad in zip(bucket.parameters(), bucket.gradients(), strict=True):
                if part := self.part_of.get(id(parameter)):
                    self.local[part] = self.local[part].to(grad.device) + grad.float().square().sum()
        return allreduce_hook(dist.group.WORLD, bucket)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Minibatch, batch_idx: int
    ) -> None:
        self.batch = batch
        self.due = self.on and trainer.global_step - self.last >= self.every

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.due:
            return
        for part in PARTS:
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
        for part in PARTS:
            scale = (accumulated / max(self.turns[part], 1)) ** 2  # microbatches without the part count as zeros
            if ranks > 1:
                square = self.local[part].to(agent.device)
                dist.all_reduce(square)
                small[part] = (square / ranks * scale, self.sizes[part])
            if part in small and small[part][1] < (size := self.sizes[part] * ranks):
                found = noise_and_signal(*small[part], _square(_gradients(agent, part)) * scale, size)
                self.averages[part].lerp_(found, 1 - self.decay)

    def _half(self, context: AbstractContextManager[None], agent: CuriousAgent) -> dict[str, tuple[Tensor, int]]:
        """Every other sequence's gradient; first the even ones, the next time the odd ones."""
        batch, first = self.batch, self.count % 2
        if len(batch.policy) < 2 and agent.policy.memory_gradient:
            return {}  # the world model's first sequences are the policy's, and can't be divided
        half = Minibatch(*(x[first::2] if len(x) > 1 else x for x in (batch.model, batch.policy)))
        wanted = {part: [p for p in getattr(agent, part).parameters() if p.requires_grad] for part in PARTS}
        devices = [agent.device] if agent.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.enable_grad(), context:
            loss = agent.weighted_sum(
                agent.losses(half).terms
            )  # whoever draws numbers draws those that training goes on with
            found = torch.autograd.grad(loss, [*wanted["model"], *wanted["policy"]], allow_unused=True)
        cut = len(wanted["model"])
        return {
            part: (_square([g for g in grads if g is not None]), len(getattr(half, part)))
            for part, grads in (("model", found[:cut]), ("policy", found[cut:]))
        }

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pl_module.agent.metrics |= {f"noise_scale_{part}": self.value(part) for part in PARTS}

    def value(self, part: str) -> float:
        """The noise scale of a part as far as known, in sequences; nan where |G|^2 isn't above zero."""
        signal, noise = self.averages[part].tolist()
        return max(noise, 0.0) / signal if signal > 0 else math.nan

    def state_dict(self) -> dict[str, Any]:
        averages = {part: x.tolist() for part, x in self.averages.items()}
        return {"averages": averages, "last": self.last, "count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.averages = {part: torch.tensor(x) for part, x in state_dict["averages"].items()}
        self.last, self.count = state_dict["last"], state_dict["count"]


def noise_and_signal(small: Tensor, small_size: int, big: Tensor, big_size: int) -> Tensor:
    """Squared norms of gradients at two batch sizes -> (|G|^2, tr(Sigma)), both unbiased: (2,).

    E|G_B|^2 = |G|^2 + tr(Sigma) / B, solved for both (arXiv 1812.06162, appendix A.1).
    """
    signal = (big_size * big - small_size * small) / (big_size - small_size)
    noise = (small - big) / (1 / small_size - 1 / big_size)
    return torch.stack([signal, noise])


def _gradients(agent: CuriousAgent, part: str) -> list[Tensor]:
    return [p.grad for p in getattr(agent, part).parameters() if p.grad is not None]


def _square(gradients: list[Tensor]) -> Tensor:
    return torch.nn.utils.get_total_norm(gradients).float().square()
