"""Errors that a command turns into one line and an exit code, and the checks that raise them."""

from __future__ import annotations

import errno
import re
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any


class ConfigError(ValueError):
    """Bad input: one line that names the key, the value and what is allowed."""


class SettingError(ConfigError):
    """A value outside its range or its choices.

    Args:
        key: as a user sets it, for example `data.minibatches`; of a constructor, the group and the argument.
        value: the given value.
        allowed: the rest of the line, for example `are whole numbers from 1`.
    """

    def __init__(self, key: str, value: Any, allowed: str):
        super().__init__(f"{key}={value}: allowed {allowed}")
        self.key, self.value, self.allowed = key, value, allowed

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.key, self.value, self.allowed)


class UnwritableError(OSError):
    """Error of a file that cannot be written. Its line names what is kept; a command ends with exit code 1."""


UNWRITABLE = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO, errno.ENAMETOOLONG)
)
"""Numbers of an OSError about a full or read-only disk, a quota, or a limit of the size of a file or name."""


class NonFiniteLoss(RuntimeError):
    """The loss was nan, infinite or above its limit. The weights from before the step are kept."""


def check_range(key: str, value: Any, interval: str, *, whole: bool = False, null: bool = False) -> None:
    """Raise SettingError unless `value` is a number in an interval.

    Args:
        key: as the user sets it.
        value: the value to check.
        interval: such as `[0, 1)` or `(0, inf)`; a square bracket includes the bound, a round one excludes it.
        whole: only integers are allowed.
        null: None is allowed as well.
    """
    if value is None and null:
        return
    bounds = re.fullmatch(r"([\[(])([^,]+), ([^,]+)([\])])", interval)
    assert bounds is not None, interval
    left, low, high, right = bounds.groups()
    kind: type = Integral if whole else Real  # NumPy's scalars are registered as these
    if isinstance(value, kind) and not isinstance(value, bool):
        number: Any = value
        above = number >= float(low) if left == "[" else number > float(low)
        below = number <= float(high) if right == "]" else number < float(high)
        if above and below:
            return
    limits = f"{'from' if left == '[' else 'above'} {low}"
    if high != "inf":
        limits += f" {'to' if right == ']' else 'to below'} {high}"
    raise SettingError(key, value, f"are {'null and ' if null else ''}{'whole ' if whole else ''}numbers {limits}")


def check_choice(key: str, value: Any, allowed: Collection[Any]) -> None:
    """Raise SettingError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise SettingError(key, value, f"are {', '.join('null' if x is None else str(x) for x in allowed)}")
