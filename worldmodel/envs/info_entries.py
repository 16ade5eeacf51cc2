"""Selection of the entries of `info` that are numbers of one shape."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from worldmodel.errors import ConfigError

LARGEST = 1024
"""Numbers a step and copy up to which an entry is kept without being requested."""

_NUMBERS = "biuf"
_warned: set[str] = set()  # keys that this process has warned of


class Large(NamedTuple):
    """Placeholder of a large entry, which is not sent from process to process."""

    size: int


class InfoEntries:
    """Selection of the entries of info, which a run stores at every step.

    Kept are numbers and arrays of numbers of one shape, in each copy and at each step, of up to `LARGEST` numbers.
    Other numeric entries are left out from then on, with one warning a process, unless they are requested. Text and
    objects are left out silently; so is, at a step, an entry that not each copy has set.

    requested: keys that are kept whatever their size, each with the setting that requests it. Raises ConfigError, which
        names the setting, if the shape of one changes.
    """

    def __init__(self, requested: Mapping[str, str] | None = None):
        self.requested = requested or {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._dropped: set[str] = set()

    def of_copy(self, info: dict[str, Any]) -> dict[str, Any]:
        """Return the numeric entries of one copy, with placeholders for large ones."""
        found = {}
        for key, value in info.items():
            if not isinstance(key, str) or key[:1] in ("", "_"):  # gymnasium's masks begin with _
                continue
            if isinstance(value, np.ndarray | np.generic):
                if value.dtype.kind not in _NUMBERS:
                    continue
                if value.size > LARGEST and key not in self.requested:
                    value = Large(value.size)
            elif not isinstance(value, bool | int | float):
                continue
            found[key] = value
        return found

    def join(self, infos: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
        """Return arrays (N, ...) of the entries of N copies, each from `of_copy`."""
        found: dict[str, np.ndarray] = {}
        for key in infos[0]:
            if key in self._dropped:
                continue
            try:
                values = [info[key] for info in infos]
            except KeyError:
                continue
            shapes = {getattr(value, "shape", ()) for value in values if not isinstance(value, Large)}
            if large := [value for value in values if isinstance(value, Large)]:
                self._drop_large(key, large[0].size)
            elif len(shapes) > 1:
                self._drop_ragged(key, *sorted(shapes)[:2])
            else:
                array = np.array(values)
                if array.dtype.kind in _NUMBERS:  # an int beyond 64 bits gives an object
                    found[key] = array
        return found

    def select(self, info: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return those of the entries (N, ...) that are kept."""
        found = {}
        for key, value in info.items():
            if key in self._dropped:
                continue
            shape = value.shape[1:]
            if self._shapes.get(key) == shape:
                found[key] = value
            elif key in self._shapes:
                self._drop_ragged(key, self._shapes[key], shape)
            elif value[0].size > LARGEST and key not in self.requested:
                self._drop_large(key, value[0].size)
            else:
                self._shapes[key] = shape
                found[key] = value
        return {k: v if v.dtype.itemsize <= 8 and v.dtype.isnative else v.astype(float) for k, v in found.items()}

    def _drop_large(self, key: str, size: int) -> None:
        self._drop(key, f"it has {size:,} numbers a step, at most {LARGEST:,} are kept unless env.info_keys names it")

    def _drop_ragged(self, key: str, *shapes: tuple[int, ...]) -> None:
        found = " and ".join(map(str, shapes))
        if key in self.requested:
            setting = self.requested[key]
            raise ConfigError(f"{setting}: info[{key!r}] has the shapes {found}, allowed are entries of one shape")
        self._drop(key, f"its shape changes, for example {found}")

    def _drop(self, key: str, reason: str) -> None:
        self._dropped.add(key)
        if key not in _warned:
            _warned.add(key)
            print(f"warning: info[{key!r}] is left out: {reason}", file=sys.stderr, flush=True)
