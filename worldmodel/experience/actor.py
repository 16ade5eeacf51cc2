"""Acting with memory: a window of rows, the cache over it, and the policy that reads it."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium as gym
import torch
from torch import Tensor

from worldmodel.model.action_embedding import empty_actions
from worldmodel.model.world_model import WorldModel
from worldmodel.policy import ActorCritic
from worldmodel.types import Obs, Sequences, map_obs


@dataclass
class ActorOutput:
    """Outputs of acting on one row, all with leading dim N."""

    act: Tensor
    logp: Tensor
    values: Tensor  # (N, 2): extrinsic, intrinsic
    h: Tensor  # (N, D)
    z: Tensor  # (N, *latent)


class Actor:
    """Acting in N streams of steps, with a window over the last K to K + T rows of each.

    `rows` is a window of capacity K + T + 1. `shift_window()` moves its last K rows to the front and re-encodes them
    with the present weights; a KV cache then grows one row at a time. `observe` shifts a full window by itself, so
    nothing is flushed silently.
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
        self.rows: Sequences | None = None  # laid out at the first observation, whose shapes it takes
        self.state = None
        self.cursor = context  # where the next observation goes
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
        """Keep the last K rows, drop the others, and re-encode the kept ones."""
        keep = self.context
        shift = self.cursor - keep
        if shift:
            self.rows.map(lambda x: x[:, :keep].copy_(x[:, shift : shift + keep].clone()))
            self.rows.valid[:, keep:] = False
            self.cursor = keep
        window = self.rows.until(keep)
        x = self.model.tokens(self.model.encoder(window.obs), window.prev_act, window.starts) if keep else None
        if x is None:
            x = torch.zeros(self.num_envs, 0, self.model.memory.dim, device=self.device)
        capacity = keep + self.rollout_length + 1
        _, self.state = self.model.memory.prefill(x, window.episode, window.valid, capacity)

    @torch.no_grad()
    def observe(self, obs: Obs, greedy: bool = False, actions: Tensor | None = None) -> ActorOutput:
        """Take in obs (N, *obs_shape) and choose an action; `actions` overrides the choice (its logp is then 0)."""
        if self.rows is None:
            self.rows = self._lay_out(obs)
        if self.state is None or self.cursor > self.context + self.rollout_length:
            self.shift_window()
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
            act, logp, values = self.policy.act(h, seen, greedy)
        else:
            values = self.policy(h, seen)[1]
            act, logp = actions, torch.zeros_like(values[:, 0])
        rows.act[:, t] = act
        self.cursor += 1
        return ActorOutput(act, logp, values, h, z)

    def record_outcome(
        self, rew: Tensor, end: Tensor, trunc: Tensor, ignored: Tensor, fault: Tensor | None = None
    ) -> None:
        """Record the outcome of the last `observe`'s action, each (N,); `ignored` where the environment reset instead.

        After a `fault` the observation acted on was its episode's last one, so the step that led to it is a truncation.
        """
        t = self.cursor - 1
        if fault is not None and t:
            self.rows.trunc[:, t - 1] |= fault & self.rows.mask[:, t - 1] & ~self.rows.end[:, t - 1]
        self.rows.rew_ext[:, t] = rew
        self.rows.end[:, t] = end
        self.rows.trunc[:, t] = trunc
        self.rows.mask[:, t] = ~ignored
        self.episode = self.episode + ignored
