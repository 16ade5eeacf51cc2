"""Structure of spaces: nested observations as one flat Dict, and actions of several leaves as one array."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

DISCRETE = (Discrete, MultiDiscrete, MultiBinary)


def is_text(space: gym.Space) -> bool:
    """Return True for a space of strings (Text, and MiniGrid's own MissionSpace)."""
    return space.dtype is not None and np.dtype(space.dtype).kind == "U"


def one_line(space: gym.Space) -> str:
    """Return the name of a space for a message."""
    return " ".join(str(space).split())


def _children(node: Any) -> list[tuple[str, Any]] | None:
    """Return the entries of a Dict or Tuple space, or of their values, by name; None for a leaf."""
    if isinstance(node, Dict | dict):
        return [(str(key), value) for key, value in node.items()]
    if isinstance(node, Tuple | tuple):
        return [(str(i), value) for i, value in enumerate(node)]
    return None


def leaves(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a space, or of one of its values, with their joined keys such as `a.b` and `a.0`."""
    children = _children(node)
    if children is None:
        yield name, node
        return
    for key, child in children:
        yield from leaves(child, f"{name}.{key}" if name else key)


def is_nested(space: gym.Space) -> bool:
    """Return True if `flat_obs` changes the values of a space: a Tuple, levels below a Dict, keys that are not text."""
    if not isinstance(space, Dict):
        return isinstance(space, Tuple)
    return any(_children(child) is not None or not isinstance(key, str) for key, child in space.items())


def flat_obs_space(space: gym.Space) -> gym.Space:
    """Return a Dict or Tuple as one flat Dict with joined keys; any other space unchanged.

    Raises ValueError for two entries with the same joined key.
    """
    if _children(space) is None:
        return space
    flat: dict[str, gym.Space] = {}
    for key, leaf in leaves(space):
        if key in flat:
            raise ValueError(f"observation space {one_line(space)}: two entries have the joined key {key!r}")
        flat[key] = leaf
    return Dict(flat)


def flat_obs(obs: Any) -> dict[str, Any]:
    """Return a value of a Dict or Tuple space, of one copy or of a batch, as one flat dict with joined keys."""
    return dict(leaves(obs))


def flat_action_space(space: gym.Space) -> gym.Space:
    """Return the actions of a Dict or Tuple in one space; any other space unchanged.

    Discrete leaves become one MultiDiscrete that begins at 0, leaves of real (or of whole) numbers one Box. A single
    leaf is returned as it is.

    Raises ValueError for other leaves and for leaves of several kinds.
    """
    if _children(space) is None:
        return space
    parts = [leaf for _, leaf in leaves(space)]
    if len(parts) == 1 and isinstance(parts[0], Box | Discrete | MultiDiscrete | MultiBinary):
        return parts[0]
    if parts and all(isinstance(part, DISCRETE) for part in parts):
        return MultiDiscrete(np.concatenate([counts(part) for part in parts]))
    kinds = {np.issubdtype(part.dtype, np.integer) for part in parts if isinstance(part, Box)}
    if parts and all(isinstance(part, Box) for part in parts) and len(kinds) == 1:
        low, high = (np.concatenate([np.ravel(getattr(p, bound)) for p in parts]) for bound in ("low", "high"))
        return Box(low, high, dtype=np.int64 if kinds == {True} else np.float64)
    raise ValueError(
        f"action space {one_line(space)}: allowed in one space are discrete leaves, Boxes of real numbers, or Boxes of "
        "whole numbers; combine them in a wrapper"
    )


def unflatten_action(space: gym.Space, flat: Any) -> Any:
    """Return actions of `flat_action_space(space)`, (*lead, *shape), as values of `space`, leaves (*lead, ...)."""
    if _children(space) is None:
        return flat
    parts = [leaf for _, leaf in leaves(space)]
    if len(parts) == 1:
        return _rebuild(space, iter([flat]))
    sizes = [int(np.prod(part.shape)) for part in parts]
    pieces = np.split(np.asarray(flat), np.cumsum(sizes)[:-1], axis=-1)
    values = (_leaf(part, piece) for part, piece in zip(parts, pieces, strict=True))
    return _rebuild(space, values)


def counts(space: gym.Space) -> np.ndarray:
    """Return the numbers of values of a discrete space's components: (M,) int64."""
    if isinstance(space, MultiBinary):
        return np.full(int(np.prod(space.shape)), 2, np.int64)
    return np.ravel(space.nvec if isinstance(space, MultiDiscrete) else space.n).astype(np.int64)


def _leaf(space: gym.Space, piece: np.ndarray) -> np.ndarray:
    """Return one leaf (*lead, *shape) from its numbers (*lead, M); discrete ones are counted from 0."""
    value = piece.reshape(piece.shape[:-1] + space.shape)
    return (value + getattr(space, "start", 0)).astype(space.dtype)[()]


def _rebuild(space: gym.Space, values: Iterator[np.ndarray]) -> Any:
    if isinstance(space, Dict):
        return {key: _rebuild(child, values) for key, child in space.items()}
    if isinstance(space, Tuple):
        return tuple(_rebuild(child, values) for child in space)
    return next(values)


class FlatSpaces(gym.Wrapper):
    """Wrapper of one copy that removes text from observations and the structure from spaces.

    `raw_action_space` is the action space of the wrapped environment.
    """

    def __init__(self, env: gym.Env):
        super().__init__(env)
        self.raw_action_space = env.action_space
        self.action_space = flat_action_space(env.action_space)
        space = flat_obs_space(env.observation_space)
        self._keys: list[str] | None = None
        if isinstance(space, Dict):
            self._keys = [key for key, leaf in space.items() if not is_text(leaf)]
            space = Dict({key: space[key] for key in self._keys})
        self.observation_space = space

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(**kwargs)
        return self._flat(obs), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, rew, end, trunc, info = self.env.step(unflatten_action(self.raw_action_space, action))
        return self._flat(obs), rew, end, trunc, info

    def _flat(self, obs: Any) -> Any:
        if self._keys is None:
            return obs
        flat = flat_obs(obs)
        return {key: flat[key] for key in self._keys}


def flatten(env: gym.Env) -> gym.Env:
    """Return the environment in `FlatSpaces` if its spaces have text or structure."""
    space = env.observation_space
    text = isinstance(space, Dict) and any(map(is_text, space.values()))
    structured = _children(env.action_space) is not None
    return FlatSpaces(env) if text or is_nested(space) or structured else env
