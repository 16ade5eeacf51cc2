"""The agent: world model, curiosity and policy under one joint loss, independent of any trainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from worldmodel.curiosity import Curiosity, RewardNormalizer
from worldmodel.distributed import max_over_ranks, sum_over_ranks, world_size
from worldmodel.envs.spec import EnvSpec
from worldmodel.errors import ConfigError
from worldmodel.experience.actor import Actor
from worldmodel.experience.collector import Source
from worldmodel.learner.imagination import Imagination
from worldmodel.learner.running_return import RunningReturn
from worldmodel.masked import masked_means
from worldmodel.model.targets.collapse import effective_rank, latent_std
from worldmodel.model.world_model import WorldModel
from worldmodel.obs_normalizer import input_normalizer
from worldmodel.policy import ActorCritic, Objective, ReturnScale
from worldmodel.policy.returns import discounted_returns, explained_variance
from worldmodel.seeds import IMAGINATION, derive_seed
from worldmodel.types import Minibatch, Rollout, ScoredRollout


class Losses(NamedTuple):
    """The losses of a minibatch."""

    terms: dict[str, Tensor]  # by name: scalars, masked means, unweighted
    replayed: Tensor | None  # (R,) prediction error of each replayed sequence, in units of the delta's variance
    figures: dict[str, Tensor]  # metrics of the policy by name: scalars, masked means, without gradient


class CuriousAgent(nn.Module):
    """World model, policy, curiosity, reward and observation normalisers, return scale and objective.

    The running statistics of vector observations are updated when a rollout is scored. Encoders use the new ones from
    the next rollout on, so that they act and learn with the same statistics; see `begin_rollout`.

    The joint loss is the weighted sum of the masked means of unreduced (B, T) losses. A loss that is missing in
    `weights` has weight 1. `imagination` is None if the policy learns from real steps. `env_spec` has the spaces of
    the environment and their translation, with which an agent is built and acts without the environment.
    """

    env_steps: Tensor  # scalar, int64: real environment steps (no resets) over all ranks
    offline_steps: Tensor  # scalar, int64: recorded steps that rollouts were made of, over all ranks; repeats count
    steps_before: Tensor  # scalar, int64: `steps` at the start of the present rollout, which schedules read

    def __init__(
        self,
        model: WorldModel,
        policy: ActorCritic,
        curiosity: Curiosity,
        reward_normalizer: RewardNormalizer,
        return_scale: ReturnScale,
        objective: Objective,
        weights: dict[str, float],
        total_steps: int,
        imagination: Imagination | None = None,
        seed: int = 0,
        env_spec: EnvSpec | None = None,
    ):
        super().__init__()
        self.model, self.policy, self.curiosity = model, policy, curiosity
        self.reward_normalizer, self.return_scale = reward_normalizer, return_scale
        self.objective, self.imagination = objective, imagination
        self.weights, self.total_steps, self.seed = dict(weights), total_steps, seed
        self.env_spec = env_spec
        self.register_buffer("env_steps", torch.zeros((), dtype=torch.long))
        self.register_buffer(
            "offline_steps", torch.zeros((), dtype=torch.long), persistent=False
        )  # saved with the data
        self.obs_normalizer = input_normalizer(self)  # None without vector observations
        self.register_buffer("steps_before", torch.zeros((), dtype=torch.long))
        self.task_return = RunningReturn()  # of scaled and clipped extrinsic rewards; saved by `AliveValue`
        self.metrics: dict[str, float] = {}  # of the last scored rollout
        self.value_ratio: Tensor | None = None  # scalar: factor of the extrinsic value head by the last scored rollout
        self.kl: Tensor | None = None  # scalar: of the policy from the acting one, in its last minibatch on this rank

    @property
    def steps(self) -> int:
        """Number of steps so far over all ranks, in environments and recorded ones, which `total_steps` limits."""
        return int(self.env_steps + self.offline_steps)

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

    def clipped_parts(self) -> dict[str, list[nn.Parameter]]:
        """Return the trained parameters whose gradients are clipped together, by part; each belongs to one part."""
        parts = {
            "model": list(self.model.parameters()),
            **self.policy.parts(),
            "curiosity": list(self.curiosity.parameters()),
        }
        taken: set[int] = set()
        for name, parameters in parts.items():
            parts[name] = [p for p in parameters if p.requires_grad and id(p) not in taken]
            taken |= {id(p) for p in parts[name]}
        return {name: parameters for name, parameters in parts.items() if parameters}

    def begin_rollout(self) -> None:
        """Set the temperature and the statistics of observations in all encoders; called before each rollout."""
        self.steps_before.copy_(self.env_steps + self.offline_steps)
        self.policy.anneal(self.progress)
        self.kl = None
        if self.obs_normalizer is not None:
            self.obs_normalizer.publish(self)

    @property
    def progress(self) -> float:
        """Share of the steps that were done before the present rollout, in [0, 1)."""
        return float(self.steps_before) / self.total_steps

    def _normalise(self, rollout: Rollout) -> Rollout:
        """Update the statistics of observations with a new rollout, and return the rollout.

        The first rollout was collected without statistics. Those of the rollout itself are set, and its latents, memory
        and values are computed again. The log-probabilities are those of the policy that acted.
        """
        if self.obs_normalizer is None:
            return rollout
        first = self.obs_normalizer.empty
        self.obs_normalizer.update(rollout)
        if not first:
            return rollout
        self.obs_normalizer.publish(self)
        z = self.model.encoder(rollout.obs)
        h = rollout.new_rows(self.model.encode_sequence(z, rollout))
        z = rollout.new_rows(z)
        values = self.policy(h, self.policy.see(rollout.new_rows(rollout.obs), z))[1]
        ext, intrinsic = values.unbind(-1)
        return replace(rollout, h=h[:, :-1], z=z[:, :-1], value_ext=ext, value_int=intrinsic)

    @torch.no_grad()
    def score(self, rollout: Rollout, acted: bool = True) -> ScoredRollout:
        """Add the intrinsic reward, advantages and returns to a new rollout, and set `metrics` to its figures.

        The return scale covers the rollout before its returns are computed. Where it changes, so do the critic and the
        rollout's values, which were in the units of before.

        acted: the steps were taken in environments; False: they are recorded ones, which count as `offline_steps`.
        """
        rollout = self._normalise(rollout)
        mask = rollout.new_steps(rollout.mask)
        out = self.model.score_rollout(rollout)
        raw = self.curiosity.reward(rollout, out)
        rew_int = self.reward_normalizer(raw, mask)
        rew_ext, over = rollout.new_steps(rollout.rew_ext), rollout.new_steps(rollout.end | rollout.trunc)
        self.value_ratio = self.return_scale.update(rew_ext, over, mask, self.objective.gamma_ext)
        self.policy.rescale_values(self.value_ratio)
        rollout = replace(rollout, value_ext=rollout.value_ext * self.value_ratio)
        scaled = self.return_scale(rew_ext)
        scored = self.objective.score(rollout, scaled, rew_int)
        counter = self.env_steps if acted else self.offline_steps
        counter += sum_over_ranks(mask.sum())
        learnt = out.y if self.model.target.scaled else out.z  # codes cannot collapse, their encoder's latent can
        y, valid = learnt[:, :-1].flatten(0, 1).flatten(1), rollout.new_steps(rollout.valid).flatten()
        shares = masked_means({"raw": raw, "int": rew_int, "error": out.skill_error, "base": out.skill_base}, mask)
        means = sum_over_ranks(torch.stack(list(shares.values()))) / world_size()
        values = {"ext": (scored.value_ext, scored.ret_ext), "int": (scored.value_int, scored.ret_int)}
        objective = self.objective
        end, trunc = rollout.new_steps(rollout.end), rollout.new_steps(rollout.trunc)
        gamma, task = objective.gamma_ext, torch.where(mask, scaled, 0.0)
        coming = discounted_returns(task, end, trunc, mask, gamma=gamma)
        episode = rollout.new_rows(rollout.episode)
        so_far = self.task_return.update(task, episode, mask, gamma=gamma, ratio=self.value_ratio)
        figures = {
            "rew_int_raw": means[0],
            "rew_int": means[1],
            "rew_int_std": self.reward_normalizer.moments.std,
            "return_scale": self.return_scale.scale,
            "alive_value": objective.weight_int * means[1] / max(1 - objective.gamma_int, 1e-9),
            "task_value": objective.weight_ext * max_over_ranks(torch.maximum(coming, so_far).max()),
            "delta_skill": 1 - means[2] / means[3].clamp_min(1e-12),
            "latent_std": latent_std(y, valid),
            "latent_rank": effective_rank(y, valid),
            "temperature": self.policy.temperature,
            **{
                f"explained_variance_{name}": explained_variance(value[:, :-1], ret, mask)
                for name, (value, ret) in values.items()
            },
        }
        if self.policy.memory_gain is not None:
            figures["memory_gain"] = self.policy.memory_gain.detach()[0]
        numbers = torch.stack([x.double() for x in figures.values()]).tolist()  # one transfer from the device
        self.metrics = dict(zip(figures, numbers, strict=True))
        return scored

    def losses(self, batch: Minibatch) -> Losses:
        """Return the masked mean of each loss, unweighted. Only the state of random generators changes.

        A minibatch without sequences for the policy has no losses of the policy; likewise for the world model.

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
        terms: dict[str, Tensor] = {}
        figures: dict[str, Tensor] = {}
        if batch.policy is not None:
            if self.policy.memory_gradient:
                count = len(batch.policy)
                h, z = out.h[:count], out.z[:count, :-1]
            else:  # from acting, so that the ratio does not depend on later updates of the memory
                h, z = batch.policy.h, batch.policy.z
            terms = masked_means(
                self.objective.losses(self.policy, h, z, batch.policy), batch.policy.new_steps(batch.policy.mask)
            )
            reported = getattr(self.objective, "reported", ())
            figures = {name: terms.pop(name) for name in reported if name in terms}
            if losses and (unknown := self.weights.keys() - losses.keys() - terms.keys()):
                allowed = ", ".join([*losses, *terms])
                raise ConfigError(f"weights.{min(unknown)}: no such loss, allowed are {allowed}")
        if batch.model is not None:
            terms |= masked_means(losses, batch.model.new_steps(batch.model.mask))
        return Losses(terms, replayed, figures)

    def record_step(self, figures: Mapping[str, Tensor]) -> None:
        """Keep the KL divergence in the figures of a minibatch of the policy, for `within_kl_limit`."""
        self.kl = figures.get("kl", self.kl)

    def within_kl_limit(self) -> bool:
        """Return whether the policy may learn from the next minibatch; the same on all ranks."""
        limit = getattr(self.objective, "kl_limit", None)
        if limit is None or self.kl is None:
            return True
        return float(sum_over_ranks(self.kl.clone())) <= limit * world_size()

    def weighted_sum(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Return the joint loss, a scalar, from the masked means of its terms."""
        return reduce(torch.add, (self.weights.get(k, 1.0) * x for k, x in terms.items()))

    def learns_from(self, source: Source) -> bool:
        """Return whether the policy's objective applies to the steps of a source; PPO's does not to recorded ones."""
        return source.acts or getattr(self.objective, "offline", False)

    def begin_update(self) -> list[nn.Parameter]:
        """Prepare an update with learning in imagination; return the parameters that were re-initialised."""
        if self.imagination is None:
            return []
        return self.imagination.begin_update(self.policy, derive_seed(self.seed, IMAGINATION, self.steps))

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
