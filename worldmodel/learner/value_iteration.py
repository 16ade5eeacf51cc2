"""A policy that is planned: value iteration on what the world model imagines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gymnasium as gym
import torch

from worldmodel.curiosity import Curiosity
from worldmodel.learner.imagination import Imagination, Moment, any_row, imagined
from worldmodel.model.heads.dynamics import symexp
from worldmodel.types import Rollout, map_obs

if TYPE_CHECKING:
    from worldmodel.training.module import CuriousAgent


@dataclass
class Plan(Imagination):
    """Dyna (Sutton 1990) with a network for the values: at moments that are drawn, each action is imagined once, and
    its worth is what it pays and what the values say of where it leads,

        worth(h, a) = sum_k weight_k (r_k(h, a) + gamma_k (1 - p_end) (1 - u) V_k(h')),   k = extrinsic, intrinsic.

    The policy moves to softmax(worth / sharpness) (`Greedy`), and each V to what the policy's choice is worth on
    average; not to the best one's worth, which is the best by its noise, too, and values would feed on that. So one
    step looks at all actions, where PPO must first happen to take the best: what the policy wants can change within a
    few steps, once what it wanted is known (MAX, Shyam et al. 2019, plans by SAC on imagined steps).

    u is the share of novelty: what the curiosity foresees of this action, by the most it can foresee (`max`, and `none`
    with u = 0). Where nothing is known of what comes, what is imagined is arbitrary, and so is its value; without u,
    those values feed on each other and grow without bound.

    The moments are old steps, and what random actions lead to from them within `horizon - 1` imagined steps: so that
    the values know of places that were never seen, too. A life in which the episode would have ended is left out.
    """

    horizon: int = 3

    def check(self, act_space: gym.Space, curiosity: Curiosity) -> None:
        """See `Imagination.check`."""
        if curiosity.most is None:
            name = type(curiosity).__name__
            raise ValueError(f"policy=plan with curiosity {name}, which has no upper limit: allowed are max, none")
        if not isinstance(act_space, gym.spaces.Discrete):
            raise ValueError(f"policy=plan with actions {act_space}: allowed are Discrete")

    def rollouts(self, agent: CuriousAgent, past: Rollout) -> Iterator[Rollout]:
        """See `Imagination.rollouts`: a new one for each pass, since values have changed with the last."""
        return (agent.look(lambda: self.rollout(agent, past)) for _ in range(self.passes))

    @torch.no_grad()
    def rollout(self, agent: CuriousAgent, past: Rollout) -> Rollout:
        """past: B sequences -> (B, 1) moments with `worth` (B, 1, actions), `ret_ext` and `ret_int`."""
        model, policy, ppo = agent.model, agent.policy, agent.ppo
        count, starts = policy.dist.size, len(past)
        steps = int(torch.randint(self.horizon, ()))
        now = Moment(model, any_row(past).map(lambda x: x.repeat_interleave(count, 0)), steps + 1)
        real = now.real
        for _ in range(steps):
            act = torch.randint(count, (starts,), device=real.device).repeat_interleave(count)
            end = model.predict(now.h, act, now.y).end[::count].sigmoid()
            real = real & (torch.rand_like(end) >= end).repeat_interleave(count)
            now.step(act, alike=count)
        obs, h, z, y = now.obs, now.h, now.z, now.y
        act = torch.arange(count, device=real.device).repeat(starts)  # each once
        pred = model.predict(h, act, y)
        now.step(act)
        values = policy(now.h, policy.see(now.obs, now.z))[1]
        roll = imagined(
            map_obs(lambda *o: torch.stack(o, 1), obs, now.obs), act[:, None], real[:, None], h[:, None], z[:, None]
        )
        out = model.outcome(h[:, None], act[:, None], torch.stack([z, now.z], 1), torch.stack([y, now.y], 1))
        raw = agent.curiosity.foresee(roll, out)[:, 0]
        known = 1 - (raw / agent.curiosity.most).clamp(0.0, 1.0)
        goes_on = 1 - pred.end.sigmoid()
        worth_ext = symexp(pred.rew) + ppo.gamma_ext * known * goes_on * values[:, 0]
        worth_int = agent.reward_scale.apply(raw) + ppo.gamma_int * known * (
            (goes_on if ppo.episodic_int else 1.0) * values[:, 1]
        )
        worth_ext, worth_int = worth_ext.view(starts, 1, count), worth_int.view(starts, 1, count)
        roll = roll[::count]
        roll.worth = ppo.weight_ext * worth_ext + ppo.weight_int * worth_int
        params = policy(roll.h, policy.see(map_obs(roll.tail, roll.obs), roll.z))[0]
        chosen = policy.dist.log_probs(params, policy.temperature).exp()
        roll.ret_ext, roll.ret_int = (chosen * worth_ext).sum(-1), (chosen * worth_int).sum(-1)
        return roll
