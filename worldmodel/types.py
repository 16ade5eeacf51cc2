"""Data by stage: sequences, rollouts, scored rollouts and minibatches.

Letters, here and everywhere: N environments, B sequences, T new steps, K context steps, L = K + T, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Obs = Tensor | dict[str, Tensor]


def map_obs(fn: Callable[..., Any], *obs: Obs) -> Any:
    """Apply `fn` to every leaf of one or several observations of the same structure."""
    if isinstance(obs[0], dict):
        return {key: fn(*(o[key] for o in obs)) for key in obs[0]}
    return fn(*obs)


def first_leaf(obs: Obs) -> Tensor:
    """One tensor of the observation, for its leading shape and device."""
    return next(iter(obs.values())) if isinstance(obs, dict) else obs


@dataclass(kw_only=True)
class Sequences:
    """B sequences of L = K + T rows and one further row, whose observation closes the last transition.

    Row t holds the observation, the action taken on it and its outcome. The row after an `end` or `trunc` holds the
    true terminal observation. The environment ignores the action on that row (it resets), so its `mask` is False
    although it is `valid`. Rows before the beginning of a run are neither.
    """

    obs: Obs  # (B, L+1, *obs_shape)
    act: Tensor  # (B, L+1, *act_shape)
    episode: Tensor  # (B, L+1) int64, grows by one with each reset
    valid: Tensor  # (B, L+1) bool: a real observation
    mask: Tensor  # (B, L+1) bool: a real transition to the next row
    rew_ext: Tensor  # (B, L+1)
    end: Tensor  # (B, L+1) bool: terminated
    trunc: Tensor  # (B, L+1) bool: cut by a time limit
    num_new: int  # T, the number of new steps; the L - T rows before them are context

    @property
    def prev_act(self) -> Tensor:
        """(B, L+1, *act_shape): the action of the row before; meaningless on rows that `starts` marks."""
        return torch.cat([torch.zeros_like(self.act[:, :1]), self.act[:, :-1]], 1)

    @property
    def starts(self) -> Tensor:
        """(B, L+1) bool: rows that no row of the same episode precedes in this window."""
        same = (self.episode[:, 1:] == self.episode[:, :-1]) & self.valid[:, :-1]
        return torch.cat([torch.ones_like(self.valid[:, :1]), ~same], 1)

    def new_steps(self, x: Any) -> Any:
        """The T new transitions of a tensor or observation: (B, L+1, ...) -> (B, T, ...)."""
        return map_obs(lambda leaf: leaf[:, -self.num_new - 1 : -1], x)

    def new_rows(self, x: Any) -> Any:
        """The T + 1 rows around the new transitions of a tensor or observation: (B, L+1, ...) -> (B, T+1, ...)."""
        return map_obs(lambda leaf: leaf[:, -self.num_new - 1 :], x)

    def next_rows(self, x: Any) -> Any:
        """The T rows after the new transitions of a tensor or observation: (B, L+1, ...) -> (B, T, ...)."""
        return map_obs(lambda leaf: leaf[:, -self.num_new :], x)

    def map(self, fn: Callable[[Tensor], Tensor]) -> Self:
        """Apply `fn` to every tensor. `fn` keeps the rows (dimension 1)."""
        changed = {name: map_obs(fn, x) for name, x in self.tensors().items()}
        return replace(self, **changed)

    def tensors(self) -> dict[str, Any]:
        """Every field by name but the number of new steps: tensors, and dicts of tensors."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "num_new"}

    def as_sequences(self) -> Sequences:
        """The fields of `Sequences` alone, without what a later stage has added."""
        return Sequences(**{f.name: getattr(self, f.name) for f in fields(Sequences)})

    def until(self, row: int) -> Sequences:
        """The first `row` rows, all of which count as context: history from which imagination starts."""
        rows = {name: map_obs(lambda x: x[:, :row], x) for name, x in self.as_sequences().tensors().items()}
        return Sequences(**rows, num_new=0)

    def __getitem__(self, index: Any) -> Self:
        """Some of the sequences: an index, a slice or a mask of the batch dimension."""
        return self.map(lambda x: x[index])

    def __len__(self) -> int:
        return len(self.act)

    def split(self, size: int) -> list[Self]:
        """Groups of `size` sequences, the last one perhaps smaller."""
        return [self[start : start + size] for start in range(0, len(self), size)]


@dataclass(kw_only=True)
class Rollout(Sequences):
    """Sequences with the acting policy's outputs on their T new transitions.

    `info` holds figures of the environment that no model reads: states to probe or to count, the belief of an ideal
    observer, flags of a wrapper. Entries about a transition stand beside the observation that closes it:
    `info[key][:, 1:]` is aligned with the T transitions, `info[key][:, :-1]` with the h before them.
    """

    logp: Tensor  # (B, T) log-probability of act under the acting policy
    value_ext: Tensor  # (B, T+1)
    value_int: Tensor  # (B, T+1)
    h: Tensor  # (B, T, D) memory while acting
    z: Tensor  # (B, T, *latent) latents while acting
    info: dict[str, Tensor]  # (B, T+1, ...) each


@dataclass(kw_only=True)
class ScoredRollout(Rollout):
    """A rollout with its intrinsic reward, its advantages and its returns."""

    rew_int: Tensor  # (B, T) normalised and scaled
    adv: Tensor  # (B, T) weighted sum of both advantages
    ret_ext: Tensor  # (B, T)
    ret_int: Tensor  # (B, T)


@dataclass(kw_only=True)
class PlannedRollout(Rollout):
    """A rollout on which a planner has valued every action, with the returns of the present policy."""

    ret_ext: Tensor  # (B, T)
    ret_int: Tensor  # (B, T)
    q_values: Tensor  # (B, T, actions) in units of the weighted rewards


@dataclass
class Minibatch:
    """One step of the optimizer: sequences for the policy, and sequences for the world model in its turn.

    Where the policy's gradient reaches the memory, the first sequences of `model` are those of `policy`.
    """

    model: Sequences | None
    policy: ScoredRollout | PlannedRollout
    replayed: NDArray[np.int64] | None = (
        None  # numbers of the last sequences of `model`, where the replay ranks by loss
    )
    reset: Sequence[nn.Parameter] = field(default_factory=tuple)  # parameters that were re-initialised before this step


def add_fields(stage: type[Any], sequences: Sequences, **fields_of_stage: Any) -> Any:
    """The next stage of some sequences: all their fields and the new ones."""
    return stage(**vars(sequences), **fields_of_stage)


def concatenate(parts: Sequence[Sequences]) -> Sequences:
    """Join sequences along the batch. All parts have the same number of rows and of new steps."""
    shared = [part.as_sequences() for part in parts]
    if len(shared) == 1:
        return shared[0]
    joined = {
        name: map_obs(lambda *x: torch.cat(x), *(getattr(part, name) for part in shared))
        for name in shared[0].tensors()
    }
    return Sequences(**joined, num_new=shared[0].num_new)
