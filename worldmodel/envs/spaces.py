"""Supported spaces, and the conversion between an engine's arrays and tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from torch import Tensor

from worldmodel.types import Obs

_HASHED = 16384  # numbers of an observation that its hash reads, at most


class Reader:
    """Selection of keys of an engine's batched observation and conversion to tensors of the published `space`.

    keys: None takes all but text (a Text space, or `mission`, which envpool gives as bytes); one gives that key's plain
        tensor, several give a dict.
    copy: copy even if the array could be shared, because the engine overwrites it.

    Raises ValueError for unknown keys and unsupported spaces.
    """

    def __init__(self, space: gym.Space, keys: Sequence[str] | None = None, copy: bool = True):
        self.copy, self.raw = copy, space
        self.keys: str | list[str] | None = None
        if isinstance(space, Dict):
            chosen = _choose(space, keys)
            if len(chosen) == 1:
                self.keys, self.raw = chosen[0], space[chosen[0]]
            else:
                self.keys, self.raw = chosen, Dict({k: space[k] for k in chosen})
        elif keys is not None:
            raise ValueError(f"env.keys={list(keys)}: the observation {space} has no keys, allowed is null")
        if isinstance(self.keys, list):
            self.space = Dict({k: _publish(self.raw[k], f"observation {k!r}") for k in self.keys})
        else:
            self.space = _publish(self.raw, "observation")

    def __call__(self, obs: Any) -> Obs:
        """Convert arrays (N, *shape), possibly in a dict, to tensors (N, *shape)."""
        if isinstance(self.keys, list):
            return {k: self._leaf(self.raw[k], self.space[k], obs[k]) for k in self.keys}
        return self._leaf(self.raw, self.space, obs if self.keys is None else obs[self.keys])

    def _leaf(self, raw: gym.Space, space: gym.Space, value: np.ndarray) -> Tensor:
        if not isinstance(raw, Box):
            value = value - raw.start
        return torch.from_numpy(np.array(value, dtype=space.dtype, copy=self.copy or None))


def action_space(space: gym.Space) -> gym.Space:
    """Return the published action space: discrete values begin at 0, boxes are float32."""
    return _publish(space, "action")


def to_actions(space: gym.Space, act: Tensor, num_envs: int) -> np.ndarray:
    """Convert a tensor (N, *shape) to an array in the engine's dtype; boxes are clipped to their bounds.

    Raises ValueError for another shape.
    """
    value = act.detach().cpu().numpy()
    if value.shape != (allowed := (num_envs, *space.shape)):
        raise ValueError(f"actions of shape {value.shape}: allowed is {allowed}")
    if isinstance(space, Box):
        return np.clip(value, space.low, space.high).astype(space.dtype)
    return (value + space.start).astype(space.dtype)


def _choose(space: Dict, keys: Sequence[str] | None) -> list[str]:
    if keys is None:
        return [k for k, s in space.items() if not is_text(s) and k != "mission"]
    allowed = ", ".join(space)
    if isinstance(keys, str) or not keys or len(set(keys)) < len(keys):
        raise ValueError(f"env.keys={keys!r}: allowed are null or a list of different keys out of {allowed}")
    for key in keys:
        if key not in space.spaces:
            raise ValueError(f"env.keys={list(keys)}: no {key!r} in the observation, allowed are {allowed}")
    return list(keys)


def is_text(space: gym.Space) -> bool:
    """Return True for a space of strings (Text, and MiniGrid's own MissionSpace)."""
    return space.dtype is not None and np.dtype(space.dtype).kind == "U"


def _publish(space: gym.Space, what: str) -> gym.Space:
    if isinstance(space, Box):
        if space.dtype == np.uint8:
            return space
        low, high = (np.asarray(bound, dtype=np.float32) for bound in (space.low, space.high))
        return Box(low, high, dtype=np.float32)
    if isinstance(space, Discrete):
        return Discrete(int(space.n))
    if isinstance(space, MultiDiscrete):
        return MultiDiscrete(space.nvec)
    raise ValueError(f"{what} space {space}: allowed are Box, Discrete and MultiDiscrete")


def digest(obs: Any) -> str:
    """Return a hash of an observation, of one copy or of several; of large ones, of evenly spaced numbers in them."""
    leaves = [obs[key] for key in sorted(obs)] if isinstance(obs, Mapping) else [obs]
    flat = (np.asarray(leaf).reshape(-1) for leaf in leaves)
    return hashlib.sha256(b"".join(x[:: 1 + len(x) // _HASHED].tobytes() for x in flat)).hexdigest()
