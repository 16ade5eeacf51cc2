"""Where a policy can learn without acting: in what the world model imagines."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from worldmodel.heads import symexp
from worldmodel.types import Rollout, map_obs

if TYPE_CHECKING:
    from worldmodel.module import CuriousAgent


@dataclass
class Dream:
    """Imagined rollouts of the present policy, on which PPO learns instead of on what was lived through (Sutton 1990,
    Dyna; Hafner et al. 2020, Dreamer). They are paid what the curiosity foresees and what the reward head expects, so
    the policy can be led to where it has never been, as by MAX (Shyam et al. 2019) and Plan2Explore (Sekar et al.
    2020).

    Observations are imagined symbol by symbol, drawn from the observation head (as in IRIS, Micheli et al. 2023): what
    is imagined can be encoded like what is seen, and no drift of a latent can be mistaken for novelty.

    starts: sequences drawn from the replay for each dream, of which one and the same row is where imagination begins.
    horizon: steps imagined. passes: steps of the optimiser on each dream. anew: after each rollout the policy
    forgets how it chooses (its last layer; the values stay), and is planned again from what the model knows now: one
    that has settled for a way would be slow to leave it when its end is no news any more. An episode ends as probably
    as the model says.
    """

    starts: int = 64
    horizon: int = 15
    passes: int = 4
    anew: bool = False

    def __post_init__(self) -> None:
        for key in ("starts", "horizon", "passes"):
            if (value := getattr(self, key)) < 1:
                raise ValueError(f"policy.dream.{key}={value}: allowed are whole numbers from 1")

    def begin(self, agent: CuriousAgent) -> None:
        """Called before an update learns."""
        if not self.anew:
            return
        with torch.random.fork_rng([]):  # the same layer on every rank
            torch.manual_seed(1_000_003 * agent.config.get("seed", 0) + int(agent.env_steps))
            agent.policy.forget()
        for parameter in agent.policy.actor.parameters():
            for optimizer in agent.trainer.optimizers:
                optimizer.state.pop(parameter, None)  # it makes new moments at its next step

    @torch.no_grad()
    def rollout(self, agent: CuriousAgent, past: Rollout) -> Rollout:
        """past: B sequences -> (B, horizon) imagined transitions, with all that the policy's losses need."""
        model, policy = agent.model, agent.policy
        row = int(torch.randint(past.act.shape[1] - 1, ()))
        seen = past[:, : row + 1]
        episode, valid = seen.episode[:, -1], seen.mask[:, -1]
        obs, no_start = map_obs(lambda o: o[:, -1], seen.obs), torch.zeros_like(valid)
        z = model.encoder(seen.obs)
        x = model.tokens(z, seen.prev_act, seen.starts)
        h, state = model.memory.prefill(x, seen.episode, seen.valid, row + 1 + self.horizon)
        h, z = h[:, -1], z[:, -1]
        told: defaultdict[str, list[Tensor]] = defaultdict(list)
        observed = [obs]
        for _ in range(self.horizon):
            act, logp, values = policy.act(h, policy.see(obs, z))
            y = model.target(obs, z)
            pred = model.predict(h, act, y)
            end = torch.rand_like(pred.end) < pred.end.sigmoid()
            steps = {"act": act, "logp": logp, "values": values, "h": h, "z": z, "y": y, "end": end}
            for name, value in (steps | {"rew": symexp(pred.rew)}).items():
                told[name].append(value)
            obs = model.imagine(h, act, obs)
            z = model.encoder(obs)
            h = model.memory.step(model.tokens(z, act, no_start), episode, valid, state)
            observed.append(obs)
        told["values"].append(policy(h, policy.see(obs, z))[1])
        told["z"].append(z)
        told["y"].append(model.target(obs, z))
        return self._pay(agent, valid, map_obs(lambda *o: torch.stack(o, 1), *observed), told)

    def _pay(self, agent: CuriousAgent, real: Tensor, obs: Tensor, told: dict[str, list[Tensor]]) -> Rollout:
        """The rollout with its rewards and returns; real (B,): begins at a step that was taken."""
        act, logp, value, h, z, y, rew, end = (
            torch.stack(told[name], 1) for name in ("act", "logp", "values", "h", "z", "y", "rew", "end")
        )
        alive = torch.cat([torch.ones_like(end[:, :1]), ~end[:, :-1]], 1).cumprod(1).bool()
        mask = _closed(alive & real[:, None])
        roll = Rollout(
            obs=obs,
            act=_closed(act),
            episode=torch.zeros_like(mask, dtype=torch.long),
            valid=mask,
            mask=mask,
            rew_ext=_closed(rew),
            end=_closed(end),
            trunc=torch.zeros_like(mask),
            logp=logp,
            value_ext=value[..., 0].contiguous(),
            value_int=value[..., 1].contiguous(),
            h=h,
            z=z[:, :-1],
        )
        out = agent.model.outcome(h, act, z, y)
        raw = agent.curiosity.foresee(roll, out)
        roll.rew_int = torch.where(roll.tail(mask), agent.reward_scale.apply(raw), 0.0)
        agent.ppo.add_returns(roll)
        return roll


def _closed(x: Tensor) -> Tensor:
    """(B, T, ...) -> (B, T + 1, ...): a row of zeros for the observation that closes the last transition."""
    return torch.cat([x, torch.zeros_like(x[:, :1])], 1)
