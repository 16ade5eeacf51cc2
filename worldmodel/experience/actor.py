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
class Thought:
    """What acting on one row brought: all with leading dim N."""

    act: Tensor
    logp: Tensor
    values: Tensor  # (N, 2): extrinsic, intrinsic
    h: Tensor  # (N, D)
    z: Tensor  # (N, *latent)


class Actor:
    """N streams of steps, each remembered for the last K to K + T rows.

    `rows` is a window of capacity K + T + 1. `roll()` moves its last K rows to the front and re-encodes them with
    today's weights; a KV cache then grows one row at a time. When the window is full, `observe` rolls by itself, so
    nothing is ever flushed silently.
    """

    def __init__(
        self,
        model: WorldModel,
        policy: ActorCritic,
        act_space: gym.Space,
        *,
        num_envs: int,
        context: int,
        horizon: int,
        device: torch.device | str = "cpu",
    ):
        self.model, self.policy, self.act_space = model, policy, act_space
        self.num_envs, self.context, self.horizon, self.device = (
            num_envs,
            context,
            horizon,
            torch.device(device),
        )
        self.rows: Sequences | None = None  # laid out at the first observation, whose shapes it takes
        self.state = None
        self.row = context  # where the next observation goes
        self.episode = torch.zeros(num_envs, dtype=torch.long, device=self.device)

    def _lay_out(self, obs: Obs) -> Sequences:
        lead = (self.num_envs, self.context + self.horizon + 1)

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
        )

    @torch.no_grad()
    def roll(self) -> None:
        """Keep the last K rows, forget the others, and re-encode what is kept."""
        keep = self.context
        shift = self.row - keep
        if shift:
            self.rows.map(lambda x: x[:, :keep].copy_(x[:, shift : shift + keep].clone()))
            self.rows.valid[:, keep:] = False
            self.row = keep
        window = self.rows[:, :keep]
        x = self.model.tokens(self.model.encoder(window.obs), window.prev_act, window.starts) if keep else None
        if x is None:
            x = torch.zeros(self.num_envs, 0, self.model.memory.dim, device=self.device)
        capacity = keep + self.horizon + 1
        _, self.state = self.model.memory.prefill(x, window.episode, window.valid, capacity)

    @torch.no_grad()
    def observe(self, obs: Obs, greedy: bool = False, actions: Tensor | None = None) -> Thought:
        """Take in obs (N, *obs_shape) and choose an action; `actions` overrides the choice (its logp is then 0)."""
        if self.rows is None:
            self.rows = self._lay_out(obs)
        if self.state is None or self.row > self.context + self.horizon:
            self.roll()
        rows, t = self.rows, self.row
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
        self.row += 1
        return Thought(act, logp, values, h, z)

    def feedback(self, rew: Tensor, end: Tensor, trunc: Tensor, ignored: Tensor, fault: Tensor | None = None) -> None:
        """What came back for the action of the last `observe`, each (N,); `ignored` where the env reset instead.

        Where that was for a `fault`, the observation acted on was its episode's last: the step to it truncated it.
        """
        t = self.row - 1
        if fault is not None and t:
            self.rows.trunc[:, t - 1] |= fault & self.rows.mask[:, t - 1] & ~self.rows.end[:, t - 1]
        self.rows.rew_ext[:, t] = rew
        self.rows.end[:, t] = end
        self.rows.trunc[:, t] = trunc
        self.rows.mask[:, t] = ~ignored
        self.episode = self.episode + ignored
