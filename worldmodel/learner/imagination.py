"""Imagined rollouts: the policy learns from what the world model predicts."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import ClassVar, Protocol

import gymnasium as gym
import torch
from torch import Tensor, nn

from worldmodel.curiosity import Curiosity, RewardNormalizer
from worldmodel.errors import check_range
from worldmodel.model.heads.dynamics import symexp
from worldmodel.model.imagined_state import ImaginedState
from worldmodel.model.world_model import WorldModel
from worldmodel.policy import ActorCritic, Objective
from worldmodel.types import Obs, PlannedRollout, Rollout, ScoredRollout, Sequences, map_obs


class Imagining(Protocol):
    """The parts of an agent that imagination reads."""

    model: WorldModel
    policy: ActorCritic
    curiosity: Curiosity
    reward_normalizer: RewardNormalizer
    objective: Objective


@dataclass
class Imagination:
    """Base class of what the policy learns from instead of real steps.

    num_start_states: sequences drawn from the replay, one and the same row of which is where imagination starts.
    horizon: imagined steps. updates_per_batch: steps of the optimizer for each draw of sequences.
    """

    renewed: ClassVar[bool] = False  # a new rollout for each step of the optimizer

    num_start_states: int = 64
    horizon: int = 15
    updates_per_batch: int = 4

    def __post_init__(self) -> None:
        for key in ("num_start_states", "horizon", "updates_per_batch"):
            check_range(f"policy.imagination.{key}", getattr(self, key), "[1, inf)", whole=True)

    def check(self, act_space: gym.Space, curiosity: Curiosity) -> None:
        """Raise ValueError for actions that cannot be imagined and signals that cannot pay imagined steps."""

    def begin_update(self, policy: ActorCritic, seed: int) -> list[nn.Parameter]:
        """Prepare an update; returns the parameters that were re-initialised. `seed` is the same on every rank."""
        return []

    def rollout(self, agent: Imagining, past: Sequences) -> ScoredRollout | PlannedRollout:
        """B sequences of the past -> imagined transitions with everything that the policy's losses read."""
        raise NotImplementedError


@dataclass
class ImaginedRollouts(Imagination):
    """Imagined rollouts of the present policy, on which PPO learns (Sutton 1990, Dyna; Hafner et al. 2020, Dreamer).

    They are paid the predicted curiosity and the predicted reward, so the policy can be led to unvisited states, as in
    MAX (Shyam et al. 2019) and Plan2Explore (Sekar et al. 2020). An episode ends with the predicted probability.

    reset_actor: re-initialise the policy's last layer after each real rollout (the values stay), so that it is planned
    again from the present model: a policy that has settled for a way is slow to leave it once its end is familiar.
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
        """B sequences of the past -> (B, horizon) imagined transitions."""
        model, policy = agent.model, agent.policy
        state = ImaginedState(model, any_row(past), self.horizon)
        steps: defaultdict[str, list[Tensor]] = defaultdict(list)
        observed = [state.obs]
        for _ in range(self.horizon):
            act, logp, values = policy.act(state.h, policy.see(state.obs, state.z))
            y = state.y
            pred = model.predict(state.h, act, y)
            end = torch.rand_like(pred.end) < pred.end.sigmoid()
            step = {"act": act, "logp": logp, "values": values, "h": state.h, "z": state.z, "y": y, "end": end}
            for name, value in (step | {"rew": symexp(pred.rew)}).items():
                steps[name].append(value)
            state.step(act)
            observed.append(state.obs)
        steps["values"].append(policy(state.h, policy.see(state.obs, state.z))[1])
        steps["z"].append(state.z)
        steps["y"].append(state.y)
        obs = map_obs(lambda *o: torch.stack(o, 1), *observed)
        act, logp, value, h, z, y, rew, end = (
            torch.stack(steps[name], 1) for name in ("act", "logp", "values", "h", "z", "y", "rew", "end")
        )
        alive = torch.cat([torch.ones_like(end[:, :1]), ~end[:, :-1]], 1).cumprod(1).bool()
        rollout = imagined(
            obs, act, alive & state.real[:, None], h, z[:, :-1], rew=rew, end=end, logp=logp, value=value
        )
        raw = agent.curiosity.predict_reward(rollout, model.predict_and_compare(h, act, z, y))
        rew_int = torch.where(rollout.new_steps(rollout.mask), agent.reward_normalizer.apply(raw), 0.0)
        return agent.objective.score(rollout, rew_int)


def any_row(past: Sequences) -> Sequences:
    """The sequences up to one row of them, drawn uniformly."""
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
    logp: Tensor | None = None,
    value: Tensor | None = None,
) -> Rollout:
    """T imagined transitions: obs (B, T+1, *obs_shape), act (B, T, *act_shape), real (B, T), h (B, T, D), z
    (B, T, *latent); rew, end, logp (B, T) and value (B, T+1, 2) are zero unless given."""
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
        logp=nothing[:, 1:] if logp is None else logp,
        value_ext=value[..., 0].contiguous(),
        value_int=value[..., 1].contiguous(),
        h=h,
        z=z,
        info={},
    )


def with_last_row(x: Tensor) -> Tensor:
    """(B, T, ...) -> (B, T + 1, ...): a row of zeros for the observation that closes the last transition."""
    return torch.cat([x, torch.zeros_like(x[:, :1])], 1)
