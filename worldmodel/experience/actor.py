"""Acting with memory: a window of rows, its cache and the policy."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium as gym
import torch
from torch import Tensor

from worldmodel.model.action_embedding import empty_actions
from worldmodel.model.memory import State
from worldmodel.model.world_model import WorldModel
from worldmodel.policy import ActorCritic
from worldmodel.types import Obs, Sequences, map_obs


@dataclass
class ActorOutput:
    """Outputs of acting on one row, with leading dimension N."""

    act: Tensor  # (N, *act_shape) executed, in unit space for a Box
    sample: Tensor  # (N, *act_shape) before clipping or squashing
    logp: Tensor  # (N,)
    values: Tensor  # (N, 2): extrinsic, intrinsic
    h: Tensor  # (N, D)
    z: Tensor  # (N, *latent)


class Actor:
    """Acting in N streams of steps, with a window over the last K to K + T rows of each.

    `rows` is a window of capacity K + T + 1. `shift_window()` moves its last K rows to the front and re-encodes them
    with the present weights; a KV cache then grows by one row per step. `observe` shifts a full window itself.

    Args:
        model: the world model.
        policy: the policy.
        act_space: action space of one environment.
        num_envs: number of environments, N.
        context: steps of context, K.
        rollout_length: new steps of a rollout, T.
        device: device of the window.
    """

    def __init__(
        self,
        model: WorldModel,
        policy: ActorCritic,
        act_space: gym.Space,
        *,
        num_envs: int,
        context: int,
        rollout_length: int,
        device: torch.device | str = "cpu",
    ):
        self.model, self.policy, self.act_space = model, policy, act_space
        self.num_envs, self.context, self.rollout_length = num_envs, context, rollout_length
        self.device = torch.device(device)
        self.rows: Sequences | None = None  # allocated at the first observation, which has the shapes
        self.state: State | None = None
        self.cursor = context  # row of the next observation
        self.episode = torch.zeros(num_envs, dtype=torch.long, device=self.device)

    def _lay_out(self, obs: Obs) -> Sequences:
        lead = (self.num_envs, self.context + self.rollout_length + 1)

        def zeros(dtype: torch.dtype) -> Tensor:
            return torch.zeros(lead, dtype=dtype, device=self.device)

        return Sequences(
            obs=map_obs(lambda o: torch.zeros(*lead, *o.shape[1:], dtype=o.dtype, device=self.device), obs),
            act=empty_actions(self.act_space, lead, self.device),
            episode=zeros(torch.long),
            valid=zeros(torch.bool),
            mask=zeros(torch.bool),
            rew_ext=zeros(torch.float32),
            end=zeros(torch.bool),
            trunc=zeros(torch.bool),
            num_new=self.rollout_length,
        )

    @torch.no_grad()
    def shift_window(self) -> None:
        """Keep the last K rows, drop the others, and re-encode the kept ones. Needs a first observation."""
        rows, keep = self.rows, self.context
        assert rows is not None
        shift = self.cursor - keep
        if shift:
            rows.map(lambda x: x[:, :keep].copy_(x[:, shift : shift + keep].clone()))
            rows.valid[:, keep:] = False
            self.cursor = keep
        window = rows.until(keep)
        x = self.model.tokens(self.model.encoder(window.obs), window.prev_act, window.starts) if keep else None
        if x is None:
            x = torch.zeros(self.num_envs, 0, self.model.memory.dim, device=self.device)
        capacity = keep + self.rollout_length + 1
        _, self.state = self.model.memory.prefill(x, window.episode, window.valid, capacity)

    @torch.no_grad()
    def observe(self, obs: Obs, greedy: bool = False, actions: Tensor | None = None) -> ActorOutput:
        """Store obs (N, *obs_shape) in the window and choose an action; given `actions` replace it, with logp 0."""
        if self.rows is None:
            self.rows = self._lay_out(obs)
        if self.state is None or self.cursor > self.context + self.rollout_length:
            self.shift_window()
        assert self.state is not None
        rows, t = self.rows, self.cursor
        map_obs(lambda buffer, o: buffer[:, t].copy_(o), rows.obs, obs)
        rows.episode[:, t] = self.episode
        rows.valid[:, t] = True
        obs_t = map_obs(lambda buffer: buffer[:, t], rows.obs)
        z = self.model.encoder(obs_t)
        if t:
            prev_act = rows.act[:, t - 1]
            starts = (rows.episode[:, t - 1] != self.episode) | ~rows.valid[:, t - 1]
        else:
            prev_act, starts = torch.zeros_like(rows.act[:, 0]), torch.ones_like(rows.valid[:, 0])
        x = self.model.tokens(z, prev_act, starts)
        h = self.model.memory.step(x, self.episode, rows.valid[:, t], self.state)
        seen = self.policy.see(obs_t, z)
        if actions is None:
            act, sample, logp, values = self.policy.act(h, seen, greedy)
        else:
            values = self.policy(h, seen)[1]
            act, sample, logp = actions, actions, torch.zeros_like(values[:, 0])
        rows.act[:, t] = act
        self.cursor += 1
        return ActorOutput(act, sample, logp, values, h, z)

    def record_outcome(
        self, rew: Tensor, end: Tensor, trunc: Tensor, ignored: Tensor, fault: Tensor | None = None
    ) -> None:
        """Record the outcome of the last action, each (N,).

        ignored: the environment was reset instead. fault: the environment failed, so that the observation before it was
        the last one of its episode; the step that led to it becomes a truncation.
        """
        rows, t = self.rows, self.cursor - 1
        assert rows is not None
        if fault is not None and t:
            rows.trunc[:, t - 1] |= fault & rows.mask[:, t - 1] & ~rows.end[:, t - 1]
        rows.rew_ext[:, t] = rew
        rows.end[:, t] = end
        rows.trunc[:, t] = trunc
        rows.mask[:, t] = ~ignored
        self.episode = self.episode + ignored
