"""Translation between the spaces of an environment and the published ones, in tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from torch import Tensor

from worldmodel.envs.flat import (
    counts,
    flat_action_space,
    flat_obs,
    flat_obs_space,
    is_nested,
    is_text,
    leaves,
    one_line,
    unflatten_action,
)
from worldmodel.envs.unit_box import UnitBox
from worldmodel.types import Obs

_HASHED = 16384  # numbers of an observation that its hash reads, at most


class Translation:
    """The one translation of observations and actions, for training, evaluation and `Agent.act`.

    Published observations (`obs_space`): a Box of uint8 stays, every other Box is float32; discrete values begin at 0;
    MultiBinary becomes MultiDiscrete, which has one dimension; nested Dicts and Tuples become one flat Dict with joined
    keys (`a.b`, `a.0`), without text. Published actions (`act_space`): Discrete, MultiDiscrete of one dimension, or
    `UnitBox`; the leaves of a Dict or Tuple are joined, see `flat_action_space`.

    keys: None takes all but text (a Text space, or `mission`, which envpool gives as bytes); one key gives that entry's
        plain tensor, several a dict. A Dict of one entry gives a plain tensor as well.
    copy: copy even if an array could be shared, because the engine overwrites it.

    Raises ValueError for unknown keys and unsupported spaces.
    """

    def __init__(
        self, obs_space: gym.Space, act_space: gym.Space, keys: Sequence[str] | None = None, copy: bool = True
    ):
        self.copy, self.raw_act_space, self.nested = copy, act_space, is_nested(obs_space)
        self.raw: gym.Space = flat_obs_space(obs_space)
        self.keys: str | list[str] | None = None
        if isinstance(self.raw, Dict):
            chosen = _choose(self.raw, keys)
            self.keys = chosen[0] if len(chosen) == 1 else chosen
            self.raw = self.raw[chosen[0]] if len(chosen) == 1 else Dict({key: self.raw[key] for key in chosen})
        elif keys is not None:
            raise ValueError(f"env.keys={list(keys)}: {one_line(self.raw)} has no keys, allowed is null")
        if isinstance(self.keys, list):
            self.obs_space: gym.Space = Dict({k: _publish(self.raw[k], f"observation {k!r}") for k in self.keys})
        else:
            self.obs_space = _publish(self.raw, f"observation {self.keys!r}" if self.keys else "observation")
        self.flat_act_space = flat_action_space(act_space)
        is_box = isinstance(self.flat_act_space, Box)
        self.act_space = UnitBox(self.flat_act_space) if is_box else _publish(self.flat_act_space, "action")

    @property
    def chosen(self) -> tuple[gym.Space, list[str] | None]:
        """The observation space with the chosen entries alone, flat, and their keys; None for a space without keys."""
        if isinstance(self.keys, str):
            return Dict({self.keys: self.raw}), [self.keys]
        return self.raw, self.keys

    def read(self, obs: Any) -> Obs:
        """Convert arrays (N, *shape), nested or flat, to tensors of `obs_space` (N, *shape)."""
        if self.keys is None:
            return self._leaf(self.raw, self.obs_space, obs)
        if self.nested:
            obs = flat_obs(obs)
        if isinstance(self.keys, str):
            return self._leaf(self.raw, self.obs_space, obs[self.keys])
        return {k: self._leaf(self.raw[k], self.obs_space[k], obs[k]) for k in self.keys}

    def _leaf(self, raw: gym.Space, space: gym.Space, value: Any) -> Tensor:
        if not isinstance(raw, Box):
            value = np.asarray(value) - getattr(raw, "start", 0)
            value = value.reshape(len(value), *space.shape)
        return torch.from_numpy(np.array(value, dtype=space.dtype, copy=self.copy or None))

    def read_one(self, obs: Any) -> Obs:
        """Convert an observation of one environment to tensors with a leading dimension of 1.

        With a single key, its plain value is accepted as well. Raises ValueError for a missing key and another shape.
        """
        found = flat_obs(obs)
        if not isinstance(self.keys, list):
            key = "" if self.keys is None or "" in found else self.keys
            return self._one(self.raw, self.obs_space, found, key)
        return {key: self._one(self.raw[key], self.obs_space[key], found, key) for key in self.keys}

    def _one(self, raw: gym.Space, space: gym.Space, found: dict[str, Any], key: str) -> Tensor:
        if key not in found:
            raise ValueError(f"an observation with the entries {', '.join(found)}: {key or 'a plain array'} is missing")
        value = np.asarray(found[key])
        if value.shape != raw.shape:
            raise ValueError(f"an observation {key or ''} of shape {value.shape}: allowed is {raw.shape}")
        return self._leaf(raw, space, value[None])

    def numbers(self, act: np.ndarray) -> np.ndarray:
        """Convert published actions (*lead, *act_shape) to values of the flat action space, in its units and dtype."""
        if isinstance(self.act_space, UnitBox):
            return self.act_space.to_raw(act)
        raw = self.flat_act_space
        value = act.reshape(act.shape[: act.ndim - len(self.act_space.shape)] + raw.shape)
        return (value + getattr(raw, "start", 0)).astype(raw.dtype)

    def read_actions(self, actions: Any) -> Tensor:
        """Convert recorded actions of the environment's own space, leaves (S, ...), to published ones (S, *act_shape).

        Raises ValueError for numbers that are not actions of the space.
        """
        space = self.raw_act_space
        pairs = list(zip(leaves(space), leaves(actions), strict=True))
        if len(pairs) == 1:
            value = np.asarray(pairs[0][1][1])
        else:
            parts = [np.asarray(x) - getattr(leaf, "start", 0) for (_, leaf), (_, x) in pairs]
            value = np.concatenate([x.reshape(len(x), -1) for x in parts], -1)
        if isinstance(self.act_space, UnitBox):
            return torch.from_numpy(self.act_space.to_unit(value.reshape(-1, *self.act_space.shape)))
        value = np.asarray(value - getattr(self.flat_act_space, "start", 0), dtype=np.int64)
        value = value.reshape(-1, *self.act_space.shape)
        if (value < 0).any() or (value >= counts(self.act_space).reshape(self.act_space.shape)).any():
            raise ValueError(f"an action outside of {one_line(space)}")
        return torch.from_numpy(value)

    def write_one(self, act: Tensor) -> Any:
        """Convert a published action (*act_shape) to an action of one environment: int, array, or a nest of those."""
        return _plain(unflatten_action(self.raw_act_space, self.numbers(act.detach().cpu().numpy())))

    def write(self, act: Tensor, num_envs: int, *, flat: bool) -> Any:
        """Convert published actions (N, *act_shape) to those of a vector environment.

        flat: the copies take the flat space, see `FlatSpaces`.

        Raises ValueError for another shape.
        """
        value = act.detach().cpu().numpy()
        if value.shape != (allowed := (num_envs, *self.act_space.shape)):
            raise ValueError(f"actions of shape {value.shape}: allowed is {allowed}")
        numbers = self.numbers(value)
        return numbers if flat else unflatten_action(self.raw_act_space, numbers)


def _plain(action: Any) -> Any:
    if isinstance(action, dict):
        return {key: _plain(value) for key, value in action.items()}
    if isinstance(action, tuple):
        return tuple(map(_plain, action))
    return int(action) if action.shape == () and action.dtype.kind in "iu" else action


def _choose(space: Dict, keys: Sequence[str] | None) -> list[str]:
    if keys is None:
        chosen = [key for key, leaf in space.items() if not is_text(leaf) and key != "mission"]
        if not chosen:
            raise ValueError(f"the observation space {one_line(space)} has no numbers, allowed are spaces with some")
        return chosen
    allowed = ", ".join(space)
    if isinstance(keys, str) or not keys or len(set(keys)) < len(keys):
        raise ValueError(f"env.keys={keys!r}: allowed are null or a list of different keys out of {allowed}")
    for key in keys:
        if key not in space.spaces:
            raise ValueError(f"env.keys={list(keys)}: no {key!r} in the observation, allowed are {allowed}")
    return list(keys)


def _publish(space: gym.Space, what: str) -> gym.Space:
    if isinstance(space, Box):
        if space.dtype == np.uint8:
            return space
        low, high = (np.asarray(bound, dtype=np.float32) for bound in (space.low, space.high))
        return Box(low, high, dtype=np.float32)
    if isinstance(space, Discrete):
        return Discrete(int(space.n))
    if isinstance(space, MultiDiscrete | MultiBinary):
        return MultiDiscrete(counts(space))
    allowed = "Box, Discrete, MultiDiscrete, MultiBinary, and Dict or Tuple of those"
    raise ValueError(f"{what} space {one_line(space)}: allowed are {allowed}")


def digest(obs: Any) -> str:
    """Return a hash of an observation, of one copy or of several; of large ones, of evenly spaced numbers in them."""
    leaves = [obs[key] for key in sorted(obs)] if isinstance(obs, Mapping) else [obs]
    flat = (np.asarray(leaf).reshape(-1) for leaf in leaves)
    return hashlib.sha256(b"".join(x[:: 1 + len(x) // _HASHED].tobytes() for x in flat)).hexdigest()
