"""The agent: world model, curiosity and policy under one joint loss, independent of any trainer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from worldmodel.curiosity import Curiosity, RewardNormalizer
from worldmodel.distributed import world_size
from worldmodel.errors import ConfigError
from worldmodel.experience.actor import Actor
from worldmodel.learner.imagination import Imagination
from worldmodel.masked import masked_mean, masked_means
from worldmodel.model.targets.collapse import effective_rank, latent_std
from worldmodel.model.world_model import WorldModel
from worldmodel.policy import ActorCritic, Objective
from worldmodel.types import Minibatch, Rollout, ScoredRollout


class Losses(NamedTuple):
    """The losses of a minibatch."""

    terms: dict[str, Tensor]  # by name: scalars, masked means, unweighted
    replayed: Tensor | None  # (R,) prediction error of each replayed sequence, in units of the delta's variance


class CuriousAgent(nn.Module):
    """World model, policy, curiosity, reward normaliser and objective.

    The joint loss is the weighted sum of the masked means of unreduced (B, T) losses. A loss that is missing in
    `weights` has weight 1. `imagination` is None if the policy learns from real steps.
    """

    env_steps: Tensor  # scalar, int64: environment steps over all ranks

    def __init__(
        self,
        model: WorldModel,
        policy: ActorCritic,
        curiosity: Curiosity,
        reward_normalizer: RewardNormalizer,
        objective: Objective,
        weights: dict[str, float],
        total_steps: int,
        imagination: Imagination | None = None,
        seed: int = 0,
    ):
        super().__init__()
        self.model, self.policy, self.curiosity = model, policy, curiosity
        self.reward_normalizer, self.objective, self.imagination = reward_normalizer, objective, imagination
        self.weights, self.total_steps, self.seed = dict(weights), total_steps, seed
        self.register_buffer("env_steps", torch.zeros((), dtype=torch.long))
        self.metrics: dict[str, float] = {}  # of the last scored rollout

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self.env_steps.device

    def make_actor(
        self,
        num_envs: int,
        context: int,
        rollout_length: int,
        policy: nn.Module | None = None,
        device: torch.device | None = None,
    ) -> Actor:
        """Return an actor for `num_envs` streams of steps.

        Args:
            num_envs: number of environments, N.
            context: steps of context, K.
            rollout_length: new steps of a rollout, T.
            policy: policy that acts instead of that of the agent.
            device: device of the actor's window; None: that of the agent.
        """
        return Actor(
            self.model,
            self.policy if policy is None else cast(ActorCritic, policy),
            self.model.act_space,
            num_envs=num_envs,
            context=context,
            rollout_length=rollout_length,
            device=self.device if device is None else device,
        )

    def param_groups(self) -> dict[str, nn.Module]:
        """Return the modules with separate learning rates, by name; a parameter belongs to the first that has it."""
        heads = {name: head for name, head in self.model.heads.items() if name != "dynamics"}
        return {
            "encoder": self.model.encoder,
            "memory": self.model.memory,
            **heads,
            "policy": self.policy,
            "curiosity": self.curiosity,
        }

    @torch.no_grad()
    def score(self, rollout: Rollout) -> ScoredRollout:
        """Add the intrinsic reward, advantages and returns to a new rollout, and set `metrics` to its figures."""
        mask = rollout.new_steps(rollout.mask)
        out = self.model.score_rollout(rollout)
        raw = self.curiosity.reward(rollout, out)
        rew_int = self.reward_normalizer(raw, mask)
        scored = self.objective.score(rollout, rew_int)
        self.env_steps += mask.numel() * world_size()
        self.policy.anneal(float(self.env_steps) / self.total_steps)
        y, valid = out.y[:, :-1].flatten(0, 1).flatten(1), rollout.new_steps(rollout.valid).flatten()
        error, base = masked_mean(out.skill_error, mask), masked_mean(out.skill_base, mask)
        self.metrics = {
            "rew_int_raw": float(masked_mean(raw, mask)),
            "rew_int": float(masked_mean(rew_int, mask)),
            "rew_int_std": float(self.reward_normalizer.moments.std),
            "delta_skill": 1 - float(error / base.clamp_min(1e-12)),
            "latent_std": float(latent_std(y, valid)),
            "latent_rank": float(effective_rank(y, valid)),
            "temperature": float(self.policy.temperature),
            **({} if self.policy.memory_gain is None else {"memory_gain": float(self.policy.memory_gain)}),
        }
        return scored

    def losses(self, batch: Minibatch) -> Losses:
        """Return the masked mean of each loss, unweighted. Only the state of random generators changes.

        Raises:
            ConfigError: if `weights` has a loss that does not exist.
        """
        losses: dict[str, Tensor] = {}
        replayed = None
        if batch.model is not None:
            out = self.model(batch.model)
            losses = self.model.losses(out, batch.model) | self.curiosity.losses(batch.model, out)
            if batch.replayed is not None:
                mask = batch.model.new_steps(batch.model.mask)
                real, error = (x[-len(batch.replayed) :] for x in (mask, out.skill_error))
                replayed = (torch.where(real, error, 0.0).sum(1) / real.sum(1).clamp_min(1)).detach()
        if self.policy.memory_gradient:
            count = len(batch.policy)
            h, z = out.h[:count], out.z[:count, :-1]
        else:  # from acting, so that the ratio does not depend on later updates of the memory
            h, z = batch.policy.h, batch.policy.z
        policy_losses = self.objective.losses(self.policy, h, z, batch.policy)
        if losses and (unknown := self.weights.keys() - losses.keys() - policy_losses.keys()):
            allowed = ", ".join([*losses, *policy_losses])
            raise ConfigError(f"weights.{min(unknown)}: no such loss, allowed are {allowed}")
        terms = masked_means(policy_losses, batch.policy.new_steps(batch.policy.mask))
        if batch.model is not None:
            terms |= masked_means(losses, batch.model.new_steps(batch.model.mask))
        return Losses(terms, replayed)

    def weighted_sum(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Return the joint loss, a scalar, from the masked means of its terms."""
        return reduce(torch.add, (self.weights.get(k, 1.0) * x for k, x in terms.items()))

    def begin_update(self) -> list[nn.Parameter]:
        """Prepare an update with learning in imagination; return the parameters that were re-initialised."""
        if self.imagination is None:
            return []
        return self.imagination.begin_update(self.policy, (1_000_003 * self.seed + int(self.env_steps)) % 2**63)

    def after_step(self) -> None:
        """Update slow copies after an optimiser step that changed the world model."""
        self.model.target.update()
        self.curiosity.update()

    def resettable(self) -> dict[str, list[nn.Module]]:
        """Return the modules that can be re-initialised, by the name of the part."""
        model, policy = self.model, self.policy
        return {
            "policy_head": [policy.actor, policy.critic],
            "policy": [policy],
            "predictor": [model.heads["dynamics"]],
            "memory": [model.memory],
            "curiosity": [self.curiosity],
            "all_but_encoder": [model, policy, self.curiosity],
        }

    @torch.no_grad()
    def reinitialise(self, parts: tuple[str, ...], fresh: CuriousAgent) -> list[nn.Parameter]:
        """Copy the trainable parameters of `parts` from a new agent; return those that were changed.

        The encoder and the target are kept, because they define the latent space of all other parts.
        """
        modules = self.resettable()
        chosen = {id(p) for part in parts for module in modules[part] for p in module.parameters()}
        kept = {id(p) for module in (self.model.encoder, self.model.target) for p in module.parameters()}
        new, reset = dict(fresh.named_parameters()), []
        for name, parameter in self.named_parameters():
            if parameter.requires_grad and id(parameter) in chosen - kept:
                parameter.copy_(new[name])
                reset.append(parameter)
        return reset


RESETTABLE = ("policy_head", "policy", "predictor", "memory", "curiosity", "all_but_encoder")
"""Names in `CuriousAgent.resettable`."""
