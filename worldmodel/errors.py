"""Errors that a command turns into one line and an exit code."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


class ConfigError(ValueError):
    """Bad input: one line that names the key, the value and what is allowed."""


class NonFiniteLoss(RuntimeError):
    """The loss was nan, infinite or above its limit. The weights from before the step are kept."""


def check_range(
    key: str,
    value: Any,
    low: float | None = None,
    high: float | None = None,
    *,
    whole: bool = True,
    above: bool = False,
    null: bool = False,
) -> None:
    """Raise ValueError unless `value` is in [low, high], or in (low, high] with `above`.

    key: as the user sets it, for example `data.batch`. whole: integers only. null: None is allowed as well.
    """
    if value is None and null:
        return
    kind = "whole numbers" if whole else "numbers"
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if number and (low is None or (value > low if above else value >= low)) and (high is None or value <= high):
        return
    bounds = {
        (True, True): f" {'above' if above else 'from'} {low} to {high}",
        (True, False): f" {'above' if above else 'from'} {low}",
        (False, True): f" up to {high}",
        (False, False): "",
    }[low is not None, high is not None]
    raise ValueError(f"{key}={value}: allowed are {'null and ' if null else ''}{kind}{bounds}")


def check_choice(key: str, value: Any, allowed: Collection[Any]) -> None:
    """Raise ValueError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{key}={value}: allowed are {', '.join(map(str, allowed))}")
