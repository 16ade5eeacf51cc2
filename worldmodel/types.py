"""The shapes of the data: what a step, a rollout and a minibatch hold.

Letters, here and everywhere: N environments, B sequences, T new steps, K context steps, L = K + T, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Obs = Tensor | dict[str, Tensor]


def map_obs(fn: Callable[..., Any], *obs: Obs) -> Any:
    """Apply `fn` to every leaf of one or several observations of the same structure."""
    if isinstance(obs[0], dict):
        return {key: fn(*(o[key] for o in obs)) for key in obs[0]}
    return fn(*obs)


def first_leaf(obs: Obs) -> Tensor:
    """One tensor of the observation, for its leading shape and device."""
    return next(iter(obs.values())) if isinstance(obs, dict) else obs


@dataclass
class Sequences:
    """B sequences of L = K + T rows and one row more, whose observation closes the last transition.

    Row t holds what the agent saw, what it did, and what came back. The row after an `end` or `trunc` holds the
    true terminal observation; the action taken on it is ignored by the environment (it resets), so its `mask` is
    False although it is `valid`. Rows before the beginning of a run are neither.
    """

    obs: Obs  # (B, L+1, *obs_shape)
    act: Tensor  # (B, L+1, *act_shape)
    episode: Tensor  # (B, L+1) int64, grows by one with each reset
    valid: Tensor  # (B, L+1) bool: a real observation
    mask: Tensor  # (B, L+1) bool: a real transition to the next row
    rew_ext: Tensor  # (B, L+1)
    end: Tensor  # (B, L+1) bool: terminated
    trunc: Tensor  # (B, L+1) bool: cut by a time limit

    @property
    def prev_act(self) -> Tensor:
        """(B, L+1, *act_shape): the action of the row before; `starts` tells where there is none."""
        return torch.cat([torch.zeros_like(self.act[:, :1]), self.act[:, :-1]], 1)

    @property
    def starts(self) -> Tensor:
        """(B, L+1) bool: rows that no row of the same episode precedes in this window."""
        same = (self.episode[:, 1:] == self.episode[:, :-1]) & self.valid[:, :-1]
        return torch.cat([torch.ones_like(self.valid[:, :1]), ~same], 1)

    def map(self, fn: Callable[[Tensor], Tensor]) -> Sequences:
        """Apply `fn` to every tensor."""
        return replace(
            self,
            **{f.name: None if (v := getattr(self, f.name)) is None else map_obs(fn, v) for f in fields(self)},
        )

    def __getitem__(self, index: Any) -> Sequences:
        return self.map(lambda x: x[index])

    def __len__(self) -> int:
        return len(self.act)


@dataclass
class Rollout(Sequences):
    """Sequences with what the policy thought and what the rewards came to, on their last T transitions.

    `info` holds the environment's own figures, which no model sees: states to probe or to count, the belief of an
    ideal observer, flags of a wrapper. What it tells of a transition stands beside the observation that closes it:
    `info[key][:, 1:]` is aligned with the T transitions, `info[key][:, :-1]` with the h before them.
    """

    logp: Tensor | None = None  # (B, T) log-probability of act under the acting policy
    value_ext: Tensor | None = None  # (B, T+1)
    value_int: Tensor | None = None  # (B, T+1)
    h: Tensor | None = None  # (B, T, D) memory while acting
    z: Tensor | None = None  # (B, T, *latent) what the encoder saw while acting
    rew_int: Tensor | None = None  # (B, T) after normalisation and scale
    adv: Tensor | None = None  # (B, T) weighted sum of both advantages
    ret_ext: Tensor | None = None  # (B, T)
    ret_int: Tensor | None = None  # (B, T)
    worth: Tensor | None = None  # (B, T, actions) what each action is worth, where a planner tried them all
    info: dict[str, Tensor] | None = None  # (B, T+1, ...) each: what the environment told beside the last T+1 obs

    @property
    def new(self) -> int:
        """T, the number of new steps."""
        return self.logp.shape[1]

    def tail(self, x: Tensor) -> Tensor:
        """(B, L+1, ...) -> (B, T, ...): the rows of the T new transitions."""
        return x[:, -self.new - 1 : -1]


@dataclass
class Minibatch:
    """One optimiser step: sequences for the policy, and sequences for the world model unless this is not its turn.

    Where the policy's gradient reaches the memory, the first sequences of `model` are those of `policy`.
    """

    model: Rollout | None
    policy: Rollout
    old: NDArray[np.int64] | None = None  # the replay's numbers of the last of `model`, where it asks for their loss
