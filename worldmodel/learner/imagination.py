"""Imagined rollouts, from which the policy learns instead of from real steps."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import ClassVar, Protocol

import gymnasium as gym
import torch
from torch import Tensor, nn

from worldmodel.curiosity import Curiosity, RewardNormalizer
from worldmodel.errors import check_range
from worldmodel.model.imagined_state import ImaginedState
from worldmodel.model.world_model import WorldModel
from worldmodel.policy import ActorCritic, Objective, ReturnScale
from worldmodel.types import Obs, PlannedRollout, Rollout, ScoredRollout, Sequences, map_obs


class Imagining(Protocol):
    """Protocol of an agent, with the parts that imagination uses."""

    model: WorldModel
    policy: ActorCritic
    curiosity: Curiosity
    reward_normalizer: RewardNormalizer
    return_scale: ReturnScale
    objective: Objective


@dataclass
class Imagination:
    """Base class of imagined data for the policy.

    num_start_states: sequences drawn from the replay; imagination starts at the same row of each.
    horizon: imagined steps.
    updates_per_batch: optimiser steps per draw of sequences.

    Raises SettingError for values below 1.
    """

    renewed: ClassVar[bool] = False  # whether each optimiser step uses a new rollout

    num_start_states: int = 64
    horizon: int = 15
    updates_per_batch: int = 4

    def __post_init__(self) -> None:
        for key in ("num_start_states", "horizon", "updates_per_batch"):
            check_range(f"policy.imagination.{key}", getattr(self, key), "[1, inf)", whole=True)

    def check(self, act_space: gym.Space, curiosity: Curiosity) -> None:
        """Raise ValueError for actions that cannot be imagined and signals that cannot pay imagined steps."""

    def begin_update(self, policy: ActorCritic, seed: int) -> list[nn.Parameter]:
        """Prepare an update; return the parameters that were re-initialised. `seed` is the same on every rank."""
        return []

    def rollout(self, agent: Imagining, past: Sequences) -> ScoredRollout | PlannedRollout:
        """Return imagined transitions with all fields that the policy's losses need, from B past sequences."""
        raise NotImplementedError


@dataclass
class ImaginedRollouts(Imagination):
    """Imagined rollouts of the present policy, for PPO (Sutton 1990, Dyna; Hafner et al. 2020, Dreamer).

    Their reward is the predicted intrinsic and extrinsic reward, so that the policy can learn to reach unvisited
    states, as in MAX (Shyam et al. 2019) and Plan2Explore (Sekar et al. 2020). An episode ends with the predicted
    probability.

    reset_actor: re-initialise the policy's last layer after each real rollout, but not its values, so that the policy
        is planned again with the present model. A nearly deterministic policy is otherwise slow to leave a path whose
        end has become familiar.
    """

    reset_actor: bool = False

    def begin_update(self, policy: ActorCritic, seed: int) -> list[nn.Parameter]:
        """See `Imagination.begin_update`."""
        if not self.reset_actor:
            return []
        with torch.random.fork_rng([]):  # the same layer on every rank
            torch.manual_seed(seed)
            return policy.reset_actor()

    @torch.no_grad()
    def rollout(self, agent: Imagining, past: Sequences) -> ScoredRollout:
        """Return (B, horizon) imagined transitions from B past sequences."""
        model, policy = agent.model, agent.policy
        state = ImaginedState(model, any_row(past), self.horizon)
        steps: defaultdict[str, list[Tensor]] = defaultdict(list)
        observed = [state.obs]
        for _ in range(self.horizon):
            act, sample, logp, values = policy.act(state.h, policy.see(state.obs, state.z))
            y = state.y
            pred = model.predict(state.h, act, y)
            end = torch.rand_like(pred.end) < pred.end.sigmoid()
            step = {"act": act, "sample": sample, "logp": logp, "values": values, "h": state.h, "z": state.z}
            for name, value in (step | {"y": y, "end": end, "rew": pred.rew}).items():
                steps[name].append(value)
            state.step(act)
            observed.append(state.obs)
        steps["values"].append(policy(state.h, policy.see(state.obs, state.z))[1])
        steps["z"].append(state.z)
        steps["y"].append(state.y)
        obs = map_obs(lambda *o: torch.stack(o, 1), *observed)
        act, sample, logp, value, h, z, y, rew, end = (
            torch.stack(steps[name], 1) for name in ("act", "sample", "logp", "values", "h", "z", "y", "rew", "end")
        )
        alive = torch.cat([torch.ones_like(end[:, :1]), ~end[:, :-1]], 1).cumprod(1).bool()
        real, outcome = alive & state.real[:, None], {"rew": rew, "end": end, "value": value}
        rollout = imagined(obs, act, real, h, z[:, :-1], sample=sample, logp=logp, **outcome)
        raw = agent.curiosity.predict_reward(rollout, model.predict_and_compare(h, act, z, y))
        rew_int = torch.where(rollout.new_steps(rollout.mask), agent.reward_normalizer.apply(raw), 0.0)
        return agent.objective.score(rollout, agent.return_scale(rollout.new_steps(rollout.rew_ext)), rew_int)


def any_row(past: Sequences) -> Sequences:
    """Return the sequences up to a row that is drawn uniformly."""
    return past.until(int(torch.randint(past.act.shape[1] - 1, ())) + 1)


def imagined(
    obs: Obs,
    act: Tensor,
    real: Tensor,
    h: Tensor,
    z: Tensor,
    *,
    rew: Tensor | None = None,
    end: Tensor | None = None,
    sample: Tensor | None = None,
    logp: Tensor | None = None,
    value: Tensor | None = None,
) -> Rollout:
    """Return a rollout of T imagined transitions.

    Args:
        obs: observations (B, T+1, *obs_shape).
        act: actions (B, T, *act_shape).
        real: mask (B, T) bool of the transitions before the end of the imagined episode.
        h: memory (B, T, D).
        z: latents (B, T, *latent).
        rew: extrinsic reward (B, T), zero by default.
        end: termination (B, T) bool, False by default.
        sample: what the actions were executed from (B, T, *act_shape), the actions by default.
        logp: log-probability of the samples (B, T), zero by default.
        value: extrinsic and intrinsic value (B, T+1, 2), zero by default.
    """
    mask = with_last_row(real)
    none, nothing = torch.zeros_like(mask), torch.zeros_like(mask, dtype=h.dtype)
    value = torch.stack([nothing, nothing], -1) if value is None else value
    return Rollout(
        obs=obs,
        act=with_last_row(act),
        episode=torch.zeros_like(mask, dtype=torch.long),
        valid=mask,
        mask=mask,
        rew_ext=nothing if rew is None else with_last_row(rew),
        end=none if end is None else with_last_row(end),
        trunc=none,
        num_new=real.shape[1],
        sample=act if sample is None else sample,
        logp=nothing[:, 1:] if logp is None else logp,
        value_ext=value[..., 0].contiguous(),
        value_int=value[..., 1].contiguous(),
        h=h,
        z=z,
        info={},
    )


def with_last_row(x: Tensor) -> Tensor:
    """Append a row of zeros, for the observation that closes the last transition: (B, T, ...) -> (B, T+1, ...)."""
    return torch.cat([x, torch.zeros_like(x[:, :1])], 1)
