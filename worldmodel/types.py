"""Data by stage: sequences, rollouts, scored rollouts and minibatches.

Letters, here and everywhere: N environments, B sequences, T new steps, K context steps, L = K + T, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Obs = Tensor | dict[str, Tensor]


def map_obs(fn: Callable[..., Any], *obs: Obs) -> Any:
    """Apply `fn` to every leaf of one or several observations of the same structure."""
    first = obs[0]
    if isinstance(first, dict):
        dicts = cast(Sequence[dict[str, Tensor]], obs)
        return {key: fn(*(o[key] for o in dicts)) for key in first}
    return fn(*obs)


def first_leaf(obs: Obs) -> Tensor:
    """Return one tensor of the observation, for its leading shape and device."""
    return next(iter(obs.values())) if isinstance(obs, dict) else obs


@dataclass(kw_only=True)
class Sequences:
    """B sequences of L + 1 rows, L = K + T; the observation of the last row closes the last transition.

    Row t holds the observation, the action executed on it (in unit space for a Box, see `UnitBox`) and its outcome. The
    row after an `end` or `trunc` holds the true terminal observation. The environment ignores the action on that row
    (it resets), so its `mask` is False although it is `valid`. Rows before the start of a run have `mask` and `valid`
    False.
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
        """Action of the row before: (B, L+1, *act_shape); meaningless where `starts` is True."""
        return torch.cat([torch.zeros_like(self.act[:, :1]), self.act[:, :-1]], 1)

    @property
    def starts(self) -> Tensor:
        """First row of each episode in this window: (B, L+1) bool."""
        same = (self.episode[:, 1:] == self.episode[:, :-1]) & self.valid[:, :-1]
        return torch.cat([torch.ones_like(self.valid[:, :1]), ~same], 1)

    def new_steps(self, x: Any) -> Any:
        """Select the T new transitions of a tensor or observation: (B, L+1, ...) -> (B, T, ...)."""
        return map_obs(lambda leaf: leaf[:, -self.num_new - 1 : -1], x)

    def new_rows(self, x: Any) -> Any:
        """Select the T + 1 rows around the new transitions: (B, L+1, ...) -> (B, T+1, ...)."""
        return map_obs(lambda leaf: leaf[:, -self.num_new - 1 :], x)

    def next_rows(self, x: Any) -> Any:
        """Select the T rows that close the new transitions: (B, L+1, ...) -> (B, T, ...)."""
        return map_obs(lambda leaf: leaf[:, -self.num_new :], x)

    def map(self, fn: Callable[[Tensor], Tensor]) -> Self:
        """Apply `fn` to every tensor. `fn` keeps the rows (dimension 1)."""
        changed = {name: map_obs(fn, x) for name, x in self.tensors().items()}
        return replace(self, **changed)

    def tensors(self) -> dict[str, Any]:
        """Return every field but the number of new steps, by name: tensors, and dicts of tensors."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "num_new"}

    def as_sequences(self) -> Sequences:
        """Return the fields of `Sequences` alone, without those of later stages."""
        return Sequences(**{f.name: getattr(self, f.name) for f in fields(Sequences)})

    def until(self, row: int) -> Sequences:
        """Return the first `row` rows as context without new steps, for imagination that starts at the last of them."""
        rows = {name: map_obs(lambda x: x[:, :row], x) for name, x in self.as_sequences().tensors().items()}
        return Sequences(**rows, num_new=0)

    def __getitem__(self, index: Any) -> Self:
        """Select sequences by an index, a slice or a mask of the batch dimension."""
        return self.map(lambda x: x[index])

    def __len__(self) -> int:
        return len(self.act)

    def split(self, size: int) -> list[Self]:
        """Split into groups of `size` sequences; the last group may be smaller."""
        return [self[start : start + size] for start in range(0, len(self), size)]


@dataclass(kw_only=True)
class Rollout(Sequences):
    """Sequences with the acting policy's outputs on their T new transitions.

    `info` has values of the environment that no model reads: states for probes or counts, the belief of an ideal
    observer, flags of a wrapper. An entry about a transition is in the row of the observation that closes it, so
    `info[key][:, 1:]` is aligned with the T transitions and `info[key][:, :-1]` with the h before them.
    """

    sample: Tensor  # (B, T, *act_shape) what act is the clipped or squashed value of; act itself if discrete
    logp: Tensor  # (B, T) log-probability of the sample under the acting policy
    value_ext: Tensor  # (B, T+1) in units of the return scale; while acting, of the scale at that time
    value_int: Tensor  # (B, T+1)
    h: Tensor  # (B, T, D) memory while acting
    z: Tensor  # (B, T, *latent) latents while acting
    info: dict[str, Tensor]  # (B, T+1, ...) each


@dataclass(kw_only=True)
class ScoredRollout(Rollout):
    """A rollout with its intrinsic reward, its advantages and its returns."""

    rew_int: Tensor  # (B, T) normalised and scaled
    adv: Tensor  # (B, T) weighted sum of both advantages
    ret_ext: Tensor  # (B, T) in units of the return scale, as are value_ext and adv
    ret_int: Tensor  # (B, T)

    def single_steps(self, index: Tensor) -> ScoredRollout:
        """Select new steps as sequences of one new step, without context and `info`; index (n,) of b * T + t."""
        b, t = (index // self.num_new)[:, None], (index % self.num_new)[:, None]
        rows, pair = self.act.shape[1], torch.arange(2, device=index.device)

        def select(x: Tensor) -> Tensor:
            first = t + rows - 1 - self.num_new if x.shape[1] == rows else t
            return x[b, first if x.shape[1] == self.num_new else first + pair]

        chosen = {name: map_obs(select, x) for name, x in self.tensors().items() if name != "info"}
        return ScoredRollout(**chosen, info={}, num_new=1)


@dataclass(kw_only=True)
class PlannedRollout(Rollout):
    """A rollout with a planner's value of every action, and with the returns of the present policy."""

    ret_ext: Tensor  # (B, T)
    ret_int: Tensor  # (B, T)
    q_values: Tensor  # (B, T, actions) in units of the weighted rewards


@dataclass
class Minibatch:
    """Data of one optimiser step: sequences for the policy, and for the world model if it takes part in the step.

    One of both is there. If the policy's gradient reaches the memory, the first sequences of `model` are those of
    `policy`.
    """

    model: Sequences | None
    policy: ScoredRollout | PlannedRollout | None
    replayed: NDArray[np.int64] | None = None  # (R,) numbers in the replay of the last R sequences of `model`
    reset: Sequence[nn.Parameter] = field(default_factory=tuple)  # parameters that were re-initialised before this step
    value_ratio: Tensor | None = None  # scalar: factor of the extrinsic value head since the last step; None: 1


def add_fields(stage: type[Any], sequences: Sequences, **fields_of_stage: Any) -> Any:
    """Return the next stage of sequences: `stage` with all of their fields and the new ones."""
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
