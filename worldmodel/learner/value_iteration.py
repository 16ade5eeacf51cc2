"""Value iteration on imagined steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import gymnasium as gym
import torch

from worldmodel.curiosity import Curiosity
from worldmodel.learner.imagination import Imagination, Imagining, any_row, imagined
from worldmodel.model.imagined_state import ImaginedState
from worldmodel.policy.distributions import Categorical
from worldmodel.types import PlannedRollout, Sequences, add_fields, map_obs


@dataclass
class ImaginedValueIteration(Imagination):
    """Dyna (Sutton 1990) with a network for the values.

    At sampled states each action is imagined once, with the value

        q(h, a) = sum_k weight_k (r_k(h, a) + gamma_k (1 - p_end) (1 - u) V_k(h')),   k = extrinsic, intrinsic.

    The policy is trained towards softmax(q / target_temperature) (`QDistillation`), and each V towards the policy's
    mean q. The maximum instead of the mean would overestimate, because it selects positive errors, and bootstrapping
    would accumulate them. One optimiser step covers all actions, whereas PPO must first sample the best one, so that
    the policy can change within a few steps once its goal is familiar (MAX, Shyam et al. 2019, plans by SAC on imagined
    steps).

    The novelty u is the predicted intrinsic reward of the action divided by its maximum (signal `max`; u = 0 for
    `none`). The imagined outcome of an unknown transition is arbitrary, and so is its value; without u such values
    increase each other without bound.

    The states are replayed steps, followed by up to `horizon - 1` imagined steps of random actions, so that the values
    cover unvisited states. States after a predicted end of the episode are masked.

    Raises ValueError in `check` for actions that are not Discrete and for signals without an upper limit.
    """

    renewed: ClassVar[bool] = True  # because the values change with each step

    horizon: int = 3

    def check(self, act_space: gym.Space, curiosity: Curiosity) -> None:
        """See `Imagination.check`."""
        if curiosity.max_reward is None:
            name = type(curiosity).__name__
            raise ValueError(f"policy=planned with curiosity {name}, which has no upper limit: allowed are max, none")
        if not isinstance(act_space, gym.spaces.Discrete):
            raise ValueError(f"policy=planned with actions {act_space}: allowed are Discrete")

    @torch.no_grad()
    def rollout(self, agent: Imagining, past: Sequences) -> PlannedRollout:
        """Return (B, 1) states with `q_values` (B, 1, actions), `ret_ext` and `ret_int`, from B past sequences."""
        model, policy, objective, max_reward = agent.model, agent.policy, agent.objective, agent.curiosity.max_reward
        assert max_reward is not None and isinstance(policy.dist, Categorical)  # by `check`
        count, starts = policy.dist.size, len(past)
        steps = int(torch.randint(self.horizon, ()))
        state = ImaginedState(model, any_row(past).map(lambda x: x.repeat_interleave(count, 0)), steps + 1)
        real = state.real
        for _ in range(steps):
            act = torch.randint(count, (starts,), device=real.device).repeat_interleave(count)
            end = model.predict(state.h, act, state.y).end[::count].sigmoid()
            real = real & (torch.rand_like(end) >= end).repeat_interleave(count)
            state.step(act, group_size=count)
        obs, h, z, y = state.obs, state.h, state.z, state.y
        act = torch.arange(count, device=real.device).repeat(starts)  # each action once per state
        pred = model.predict(h, act, y)
        state.step(act)
        values = policy(state.h, policy.see(state.obs, state.z))[1]
        both = map_obs(lambda *o: torch.stack(o, 1), obs, state.obs)
        rollout = imagined(both, act[:, None], real[:, None], h[:, None], z[:, None])
        out = model.predict_and_compare(
            h[:, None], act[:, None], torch.stack([z, state.z], 1), torch.stack([y, state.y], 1)
        )
        raw = agent.curiosity.predict_reward(rollout, out)[:, 0]
        known = 1 - (raw / max_reward).clamp(0.0, 1.0)
        goes_on = 1 - pred.end.sigmoid()
        q_ext = agent.return_scale(pred.rew) + objective.gamma_ext * known * goes_on * values[:, 0]
        q_int = agent.reward_normalizer.apply(raw) + objective.gamma_int * known * (
            (goes_on if objective.episodic_int else 1.0) * values[:, 1]
        )
        q_ext, q_int = q_ext.view(starts, 1, count), q_int.view(starts, 1, count)
        rollout = rollout[::count]
        params = policy(rollout.h, policy.see(rollout.new_steps(rollout.obs), rollout.z))[0]
        chosen = policy.dist.log_probs(params, policy.temperature).exp()
        return add_fields(
            PlannedRollout,
            rollout,
            ret_ext=(chosen * q_ext).sum(-1),
            ret_int=(chosen * q_int).sum(-1),
            q_values=objective.weight_ext * q_ext + objective.weight_int * q_int,
        )
