"""Ranges of arguments by their name, which mean the same in every part of the configuration."""

from __future__ import annotations

from typing import Any

from worldmodel.errors import check_range

SIZE, RATE, DISCOUNT = "[1, inf)", "(0, inf)", "[0, 1]"
RANGES = {
    **dict.fromkeys(("dim", "hidden", "depth", "heads", "kv_heads", "members"), SIZE),
    **dict.fromkeys(("lr", "part_lr", "matrix_lr", "clip", "std"), RATE),
    **dict.fromkeys(("gamma", "gamma_ext", "gamma_int", "lam"), DISCOUNT),
    **dict.fromkeys(("warmup", "weight_decay"), "[0, inf)"),
}


def check_named_range(key: str, value: Any) -> None:
    """Check a number, or the numbers of a list or mapping, if the last name of `key` has a range.

    Raises:
        SettingError: for a number out of range.
    """
    interval = RANGES.get(key.rsplit(".", 1)[-1])
    if interval is None:
        return
    named = value.items() if isinstance(value, dict) else [("", value)]
    for name, entry in named:
        for number in entry if isinstance(entry, list | tuple) else [entry]:
            if isinstance(number, int | float):
                check_range(f"{key}.{name}" if name else key, number, interval, whole=interval == SIZE)
