"""Check of what an environment returns, before anything stacks or casts it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from worldmodel.errors import ConfigError

_SMALL = 1024
"""Entries up to which a scalar product is the fastest test of finiteness."""

Check = Callable[[Any], Any]
"""A value as returned by an environment -> the value in its space's dtype. Raises InvalidOutput."""


class InvalidOutput(ValueError):
    """A returned value that does not belong to its space, or is not a finite number where one is needed."""


class FaultyEnvironment(ConfigError):
    """An error in an environment's code, as opposed to a failure of one copy: each copy has it."""


class OutputCheck:
    """Check of the observations, rewards and flags of an environment against its own spaces.

    At each step, of each observation:
        structure      keys of a Dict (additional ones are ignored), length of a Tuple
        shape, dtype   of any size. Another dtype is cast if each value survives it: whole numbers within the range of
                       an integer dtype; any numbers for a float dtype, rounded
        finite         for float dtypes; integer ones have no other values, so images cost nothing
        range          of Discrete, MultiDiscrete and MultiBinary. The bounds of a Box are not checked: many
                       environments exceed them
    The reward is one finite number, `terminated` and `truncated` are booleans; an array of one element counts as its
    element. Text and other spaces, which no agent reads, are not checked. A step of CartPole takes 2 µs.
    """

    def __init__(self, space: gym.Space):
        self.obs: Check = _space_check(space, "observation")

    def step(self, answer: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Return what one copy's `step` returned. Raises InvalidOutput."""
        if not isinstance(answer, tuple | list) or len(answer) != 5:
            found = f"{len(answer)} values" if isinstance(answer, tuple | list) else f"one {type(answer).__name__}"
            raise InvalidOutput(f"step() returns {found}, allowed are 5: obs, reward, terminated, truncated, info")
        obs, rew, end, trunc, info = answer
        if type(rew) is not float:
            rew = _number(rew, "reward")
        if not math.isfinite(rew):
            raise InvalidOutput(f"reward of {rew}: allowed are finite numbers")
        if type(end) is not bool:
            end = _flag(end, "terminated")
        if type(trunc) is not bool:
            trunc = _flag(trunc, "truncated")
        return self.obs(obs), rew, end, trunc, _mapping(info)

    def reset(self, answer: Any) -> tuple[Any, dict[str, Any]]:
        """Return what one copy's `reset` returned. Raises InvalidOutput."""
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            raise InvalidOutput(f"reset() returns one {type(answer).__name__}, allowed are 2 values: obs, info")
        obs, info = answer
        return self.obs(obs), _mapping(info)


def check_size(space: gym.Space, what: str) -> None:
    """Raise ConfigError, which begins with `what`, for a space without a single number."""
    if isinstance(space, Dict) and not space.spaces:
        raise ConfigError(f"{what} {space} has no numbers, allowed are spaces with one or more")
    for part in space.spaces.values() if isinstance(space, Dict) else ():
        check_size(part, what)
    if space.shape is not None and 0 in space.shape:
        raise ConfigError(f"{what} {space} has size 0, allowed are spaces with one number or more")


def _space_check(space: gym.Space, what: str) -> Check:
    """Return the check of one space; `what` names the value in messages."""
    if isinstance(space, Dict):
        return _dict_check({key: _space_check(part, f"{what}[{key!r}]") for key, part in space.items()}, what)
    if isinstance(space, Tuple):
        return _tuple_check([_space_check(part, f"{what}[{i}]") for i, part in enumerate(space.spaces)], what)
    if isinstance(space, Box):
        return array_check(what, space.shape, space.dtype)
    if isinstance(space, Discrete):
        return _discrete_check(what, int(space.start), int(space.start + space.n), space.dtype)
    if isinstance(space, MultiDiscrete):
        return array_check(what, space.shape, space.dtype, space.start, space.start + space.nvec)
    if isinstance(space, MultiBinary):
        return array_check(what, space.shape, space.dtype, np.zeros((), np.int64), np.full((), 2))
    return lambda value: value


def _dict_check(checks: dict[str, Check], what: str) -> Check:
    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise InvalidOutput(f"{what} {_described(value)}: allowed is a dict with {', '.join(checks)}")
        try:
            return {key: part(value[key]) for key, part in checks.items()}
        except KeyError:
            missing = next((key for key in checks if key not in value), None)
            if missing is None:
                raise
            raise InvalidOutput(f"{what} without the key {missing!r} of its space") from None

    return check


def _tuple_check(checks: list[Check], what: str) -> Check:
    def check(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, tuple | list) or len(value) != len(checks):
            raise InvalidOutput(f"{what} {_described(value)}: allowed is a tuple of {len(checks)}")
        return tuple(part(entry) for part, entry in zip(checks, value, strict=True))

    return check


def array_check(
    what: str, shape: tuple[int, ...], dtype: np.dtype, low: np.ndarray | None = None, stop: np.ndarray | None = None
) -> Check:
    """Return the check of an array, whose values are from `low` to below `stop`, if these are given."""
    real, small = dtype.kind == "f", math.prod(shape) <= _SMALL

    def check(value: Any) -> np.ndarray:
        if type(value) is not np.ndarray or value.dtype != dtype or value.shape != shape:
            value = _cast(value, shape, dtype, what)
        # a scalar product is finite only if each factor is; it may overflow, hence the second test
        if real and not (small and math.isfinite(np.vdot(value, value))) and not np.isfinite(value).all():
            raise InvalidOutput(f"{what} with values that are not finite")
        if low is not None and not ((value >= low) & (value < stop)).all():
            raise InvalidOutput(f"{what} with values from {value.min()} to {value.max()}, outside of its space")
        return value

    return check


def _discrete_check(what: str, low: int, stop: int, dtype: np.dtype) -> Check:
    def check(value: Any) -> int:
        if type(value) is not int:
            value = int(value) if isinstance(value, np.integer) else int(_cast(value, (), dtype, what))
        if not low <= value < stop:
            raise InvalidOutput(f"{what} of {value}: allowed are whole numbers from {low} to {stop - 1}")
        return value

    return check


def _cast(value: Any, shape: tuple[int, ...], dtype: np.dtype, what: str) -> np.ndarray:
    """Convert to an array of this dtype. Raises InvalidOutput for another shape, and if the dtype has no such value."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # ragged lists, and tensors that are elsewhere
        raise InvalidOutput(f"{what} of type {type(value).__name__}: allowed is an array {shape} of {dtype}") from None
    if array.dtype.kind not in "biuf":
        raise InvalidOutput(f"{what} {_described(value)}: allowed is an array {shape} of {dtype}")
    if array.shape != shape:
        raise InvalidOutput(f"{what} of shape {array.shape}: allowed is {shape}")
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(dtype)
    if dtype.kind != "f" and not (cast == array).all():
        values = f"{array.dtype} values from {array.min()} to {array.max()}"
        raise InvalidOutput(f"{what} of {values}: allowed are values of its dtype {dtype}")
    return cast


def _number(value: Any, what: str) -> float:
    if isinstance(value, Real):
        return float(value)
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        array = None
    if array is None or array.dtype.kind not in "biuf" or array.size != 1:
        raise InvalidOutput(f"{what} {_described(value)}: allowed is one number")
    return float(array.item())


def _flag(value: Any, what: str) -> bool:
    if isinstance(value, np.bool_):
        return bool(value)
    try:
        number = _number(value, what)
    except InvalidOutput:
        number = -1.0
    if number not in (0, 1):
        raise InvalidOutput(f"{what} {_described(value)}: allowed are true and false")
    return bool(number)


def _mapping(info: Any) -> dict[str, Any]:
    if not isinstance(info, dict):
        raise InvalidOutput(f"info {_described(info)}: allowed is a dict")
    return info


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"of shape {value.shape} and dtype {value.dtype}"
    return f"of {value!r}" if value is None or isinstance(value, int | float) else f"of type {type(value).__name__}"
