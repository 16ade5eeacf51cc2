"""Where a policy can learn without acting: in what the world model imagines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING

import gymnasium as gym
import torch
from torch import Tensor

from worldmodel.curiosity import Curiosity
from worldmodel.model.heads.dynamics import symexp
from worldmodel.model.world_model import WorldModel
from worldmodel.types import Obs, Rollout, map_obs

if TYPE_CHECKING:
    from worldmodel.training.module import CuriousAgent


class Moment:
    """Where imagination has come to, in B lives that begin at the last row of what was seen.

    Observations are imagined symbol by symbol, drawn from the observation head (as in IRIS, Micheli et al. 2023): what
    is imagined can be encoded like what is seen, and no drift of a latent can be mistaken for novelty.
    """

    obs: Obs  # (B, *obs_shape)
    z: Tensor  # (B, *latent)
    h: Tensor  # (B, D)

    def __init__(self, model: WorldModel, seen: Rollout, steps: int):
        """steps: how many will be imagined at most."""
        self.model = model
        self.obs, self.real, self.episode = map_obs(lambda o: o[:, -1], seen.obs), seen.mask[:, -1], seen.episode[:, -1]
        z = model.encoder(seen.obs)
        x = model.tokens(z, seen.prev_act, seen.starts)
        h, self.memory = model.memory.prefill(x, seen.episode, seen.valid, x.shape[1] + steps)
        self.h, self.z = h[:, -1], z[:, -1]

    @property
    def y(self) -> Tensor:
        """(B, *target.shape)"""
        return self.model.target(self.obs, self.z)

    def step(self, act: Tensor, alike: int = 1) -> None:
        """Imagine what comes of act (B, *act_shape). Every `alike` lives in a row, that were one and do the same,
        see the same."""
        obs = self.model.imagine(self.h, act, self.obs)
        self.obs = map_obs(lambda o: o[::alike].repeat_interleave(alike, 0), obs) if alike > 1 else obs
        self.z = self.model.encoder(self.obs)
        x = self.model.tokens(self.z, act, torch.zeros_like(self.real))
        self.h = self.model.memory.step(x, self.episode, self.real, self.memory)


@dataclass
class Imagination:
    """What the policy learns from instead of what it lived through.

    starts: sequences drawn from the replay for each dream, of which one and the same row is where imagination begins.
    horizon: steps imagined. passes: steps of the optimiser for each draw of sequences.
    """

    starts: int = 64
    horizon: int = 15
    passes: int = 4

    def __post_init__(self) -> None:
        for key in ("starts", "horizon", "passes"):
            if (value := getattr(self, key)) < 1:
                raise ValueError(f"policy.dream.{key}={value}: allowed are whole numbers from 1")

    def check(self, act_space: gym.Space, curiosity: Curiosity) -> None:
        """Raises ValueError for actions that it can't imagine, and for signals that can't pay for what it imagines."""

    def begin(self, agent: CuriousAgent) -> None:
        """Called before an update learns."""

    def rollouts(self, agent: CuriousAgent, past: Rollout) -> Iterator[Rollout]:
        """past: B sequences -> for each of `passes` steps of the optimiser, imagined transitions with all that the
        policy's losses need."""
        raise NotImplementedError


@dataclass
class Dream(Imagination):
    """Imagined rollouts of the present policy, on which PPO learns (Sutton 1990, Dyna; Hafner et al. 2020, Dreamer).
    They are paid what the curiosity foresees and what the reward head expects, so the policy can be led to where it has
    never been, as by MAX (Shyam et al. 2019) and Plan2Explore (Sekar et al. 2020).

    anew: after each rollout the policy forgets how it chooses (its last layer; the values stay), and is planned again
    from what the model knows now: one that has settled for a way would be slow to leave it when its end is no news any
    more. An episode ends as probably as the model says.
    """

    anew: bool = False

    def begin(self, agent: CuriousAgent) -> None:
        """See `Imagination.begin`."""
        if not self.anew:
            return
        with torch.random.fork_rng([]):  # the same layer on every rank
            torch.manual_seed(1_000_003 * agent.config.get("seed", 0) + int(agent.env_steps))
            agent.policy.forget()
        for parameter in agent.policy.actor.parameters():
            for optimizer in agent.trainer.optimizers:
                optimizer.state.pop(parameter, None)  # it makes new moments at its next step

    def rollouts(self, agent: CuriousAgent, past: Rollout) -> Iterator[Rollout]:
        """See `Imagination.rollouts`: one and the same for all passes."""
        return repeat(agent.look(lambda: self.rollout(agent, past)), self.passes)

    @torch.no_grad()
    def rollout(self, agent: CuriousAgent, past: Rollout) -> Rollout:
        """past: B sequences -> (B, horizon) imagined transitions, with all that the policy's losses need."""
        model, policy = agent.model, agent.policy
        now = Moment(model, any_row(past), self.horizon)
        told: defaultdict[str, list[Tensor]] = defaultdict(list)
        observed = [now.obs]
        for _ in range(self.horizon):
            act, logp, values = policy.act(now.h, policy.see(now.obs, now.z))
            y = now.y
            pred = model.predict(now.h, act, y)
            end = torch.rand_like(pred.end) < pred.end.sigmoid()
            steps = {"act": act, "logp": logp, "values": values, "h": now.h, "z": now.z, "y": y, "end": end}
            for name, value in (steps | {"rew": symexp(pred.rew)}).items():
                told[name].append(value)
            now.step(act)
            observed.append(now.obs)
        told["values"].append(policy(now.h, policy.see(now.obs, now.z))[1])
        told["z"].append(now.z)
        told["y"].append(now.y)
        return self._pay(agent, now.real, map_obs(lambda *o: torch.stack(o, 1), *observed), told)

    def _pay(self, agent: CuriousAgent, real: Tensor, obs: Obs, told: dict[str, list[Tensor]]) -> Rollout:
        """The rollout with its rewards and returns; real (B,): begins at a step that was taken."""
        act, logp, value, h, z, y, rew, end = (
            torch.stack(told[name], 1) for name in ("act", "logp", "values", "h", "z", "y", "rew", "end")
        )
        alive = torch.cat([torch.ones_like(end[:, :1]), ~end[:, :-1]], 1).cumprod(1).bool()
        roll = imagined(obs, act, alive & real[:, None], h, z[:, :-1])
        roll.rew_ext, roll.end = closed(rew), closed(end)
        roll.logp, roll.value_ext, roll.value_int = logp, value[..., 0].contiguous(), value[..., 1].contiguous()
        raw = agent.curiosity.foresee(roll, agent.model.outcome(h, act, z, y))
        roll.rew_int = torch.where(roll.tail(roll.mask), agent.reward_scale.apply(raw), 0.0)
        agent.ppo.add_returns(roll)
        return roll


def any_row(past: Rollout) -> Rollout:
    """The sequences up to one row of them, which is drawn."""
    return past[:, : int(torch.randint(past.act.shape[1] - 1, ())) + 1]


def imagined(obs: Obs, act: Tensor, real: Tensor, h: Tensor, z: Tensor) -> Rollout:
    """T imagined transitions that neither pay nor end yet: obs (B, T + 1, *obs_shape), act (B, T, *act_shape), real
    (B, T), h (B, T, D), z (B, T, *latent)."""
    mask = closed(real)
    none, nothing = torch.zeros_like(mask), torch.zeros_like(mask, dtype=h.dtype)
    return Rollout(
        obs=obs,
        act=closed(act),
        episode=torch.zeros_like(mask, dtype=torch.long),
        valid=mask,
        mask=mask,
        rew_ext=nothing,
        end=none,
        trunc=none,
        logp=nothing[:, 1:],
        h=h,
        z=z,
    )


def closed(x: Tensor) -> Tensor:
    """(B, T, ...) -> (B, T + 1, ...): a row of zeros for the observation that closes the last transition."""
    return torch.cat([x, torch.zeros_like(x[:, :1])], 1)
