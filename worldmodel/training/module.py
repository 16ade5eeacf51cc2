"""The LightningModule: wiring only."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import lightning as L
import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from worldmodel.curiosity import Curiosity, RewardNormalizer
from worldmodel.distributed import sum_over_ranks
from worldmodel.learner.imagination import Imagination
from worldmodel.masked import masked_mean, masked_means
from worldmodel.model.targets.collapse import effective_rank, latent_std
from worldmodel.model.world_model import WorldModel
from worldmodel.policy import PPO, ActorCritic
from worldmodel.training.checkpoint import FORMAT
from worldmodel.training.config import ConfigError
from worldmodel.training.sharding import shard
from worldmodel.types import Minibatch, Rollout

T = TypeVar("T")


class NonFiniteLoss(RuntimeError):
    """The loss was nan, infinite or exploded; the weights of before the step are kept."""


class CuriousAgent(L.LightningModule):
    """World model, curiosity and policy under one joint loss.

    The loss is the weighted sum of the masked means of unreduced (B, T) losses; a loss that `weights` doesn't name
    weighs 1.
    """

    def __init__(
        self,
        model: WorldModel,
        policy: ActorCritic,
        curiosity: Curiosity,
        reward_scale: RewardNormalizer,
        ppo: PPO,
        make_optimizer: Callable[[L.LightningModule], Any],
        weights: dict[str, float],
        total_steps: int,
        config: dict[str, Any] | None = None,
        dream: Imagination | None = None,
    ):
        super().__init__()
        self.model, self.policy, self.curiosity, self.reward_scale = model, policy, curiosity, reward_scale
        self.ppo, self.make_optimizer, self.weights = ppo, make_optimizer, dict(weights)
        self.dream = dream  # where the policy learns, instead of on what it lived through
        self.total_steps = total_steps
        self.max_loss = math.inf  # see `Rollback`
        self.config = config or {}  # travels in every checkpoint, so that one file is enough to act
        self.register_buffer("env_steps", torch.zeros((), dtype=torch.long))
        self.sums: dict[str, Tensor] = {}
        self.counts: Counter[str] = Counter()
        self.model_learnt = False  # since the last step of the optimiser
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.row: dict[str, float] = {}

    @contextmanager
    def clock(self, part: str) -> Iterator[None]:
        """Add the wall-clock of a part of the update to `seconds`."""
        start = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - start

    def configure_model(self) -> None:
        """Lightning's moment to share out the parameters, where its strategy does."""
        if self._device_mesh is not None and not isinstance(self, FSDPModule):
            shard(self, self._device_mesh["data_parallel"])

    def look(self, do: Callable[[], T]) -> T:
        """Do what reads weights outside of a training step; where they are sharded, they are gathered for it."""
        return do()

    @torch.no_grad()
    def score(self, roll: Rollout) -> None:
        """Pay a fresh rollout its curiosity, compute its returns, and begin this update's metrics."""
        mask = roll.tail(roll.mask)
        out = self.model.review(roll)
        raw = self.curiosity.reward(roll, out)
        roll.rew_int = self.reward_scale(raw, mask)
        self.ppo.add_returns(roll)
        self.env_steps += mask.numel() * self.trainer.world_size
        self.policy.anneal(float(self.env_steps) / self.total_steps)
        y, valid = out.y[:, :-1].flatten(0, 1).flatten(1), roll.tail(roll.valid).flatten()
        error, base = masked_mean(out.skill_error, mask), masked_mean(out.skill_base, mask)
        self.row = {
            "rew_int_raw": float(masked_mean(raw, mask)),
            "rew_int": float(masked_mean(roll.rew_int, mask)),
            "rew_int_std": float(self.reward_scale.moments.std),
            "delta_skill": 1 - float(error / base.clamp_min(1e-12)),
            "latent_std": float(latent_std(y, valid)),
            "latent_rank": float(effective_rank(y, valid)),
            "temperature": float(self.policy.temperature),
            **({} if self.policy.memory_gain is None else {"memory_gain": float(self.policy.memory_gain)}),
        }

    def terms(self, batch: Minibatch) -> dict[str, Tensor]:
        """The masked mean of each loss, unweighted. Changes nothing but the state of random generators, and what the
        replay is told of `batch.old`."""
        losses: dict[str, Tensor] = {}
        if batch.model is not None:
            out = self.model(batch.model)
            losses = self.model.losses(out, batch.model) | self.curiosity.losses(batch.model, out)
            if batch.old is not None:
                real, error = (x[-len(batch.old) :] for x in (batch.model.tail(batch.model.mask), out.skill_error))
                loss = torch.where(real, error, 0.0).sum(1) / real.sum(1).clamp_min(1)
                self.trainer.datamodule.replay.learnt(batch.old, loss)
        if self.policy.memory_gradient:
            count = len(batch.policy)
            h, z = out.h[:count], out.z[:count, :-1]
        else:  # what the policy read while acting: its ratio is then free of what the memory has learnt since
            h, z = batch.policy.h, batch.policy.z
        policy_losses = self.ppo.losses(self.policy, h, z, batch.policy)
        if losses and (unknown := self.weights.keys() - losses.keys() - policy_losses.keys()):
            allowed = ", ".join([*losses, *policy_losses])
            raise ConfigError(f"weights.{min(unknown)}: no such loss, allowed are {allowed}")
        terms = masked_means(policy_losses, batch.policy.tail(batch.policy.mask))
        if batch.model is not None:
            terms |= masked_means(losses, batch.model.tail(batch.model.mask))
        return terms

    def weigh(self, terms: dict[str, Tensor]) -> Tensor:
        """The joint loss."""
        return sum(self.weights.get(k, 1.0) * x for k, x in terms.items())

    def training_step(self, batch: Minibatch, batch_idx: int) -> Tensor:
        terms = self.terms(batch)
        total = self.weigh(terms)
        good = total.detach().abs() < self.max_loss  # False for nan, too
        if sum_over_ranks(1.0 - good.float()):  # all ranks stop together, or the others would wait
            bad = [k for k, x in terms.items() if not torch.isfinite(x)]
            bad = bad or [
                "on another rank" if good else f"{float(total.detach()):.3g} with rollback.max_loss={self.max_loss:g}"
            ]
            raise NonFiniteLoss(f"loss is not finite at env_steps={int(self.env_steps)}: {', '.join(bad)}")
        for key, x in terms.items():
            self.sums[key] = self.sums.get(key, 0.0) + x.detach()
            self.counts[key] += 1
        self.model_learnt |= batch.model is not None
        return total

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Each part has a norm of its own: a signal with large losses must not slow the others down, and a policy
        must not step differently when the world model takes its turn."""
        if gradient_clip_algorithm == "value":
            return self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        if gradient_clip_val:
            for part in (self.model, self.policy, self.curiosity):
                if parameters := list(part.parameters()):
                    torch.nn.utils.clip_grad_norm_(parameters, gradient_clip_val)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.model_learnt:
            self.model.target.update()
            self.curiosity.update()
        self.model_learnt = False

    def report(self) -> dict[str, float]:
        """This update's metrics, by their names in metrics.csv; the sums begin anew."""
        losses = {f"loss_{key}": float(x) / self.counts[key] for key, x in self.sums.items()}
        self.sums, self.counts = {}, Counter()
        return self.row | {"entropy": -losses.pop("loss_entropy")} | losses

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"], checkpoint["format"] = self.config, FORMAT

    def configure_optimizers(self) -> Any:
        return self.make_optimizer(self)
