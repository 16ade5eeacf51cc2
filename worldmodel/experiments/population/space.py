"""Hyperparameters that a population changes: ranges and choices by key."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from worldmodel.errors import ConfigError

KINDS = ({"low", "high"}, {"low", "high", "log"}, {"choices"})


def by_key(space: Sequence[Mapping[str, Any]], name: str = "space") -> dict[str, dict[str, Any]]:
    """Return the space by the hyperparameters' keys; `name` is the configuration's key of the space.

    Raises:
        ConfigError: unless each entry is a range (`low`, `high`, perhaps `log`) or `choices`.
    """
    if not space:
        raise ConfigError(f"{name}=[]: allowed is at least one hyperparameter")
    found: dict[str, dict[str, Any]] = {}
    for entry in space:
        node = {name: value for name, value in entry.items() if name != "key"}
        words = f"{name}={dict(entry)}: allowed are key with low, high and log, or with choices"
        if "key" not in entry or entry["key"] in found or set(node) not in KINDS:
            raise ConfigError(words)
        if "choices" in node:
            if len(node["choices"]) < 2:
                raise ConfigError(f"{words}, two at least")
        elif not node["low"] < node["high"] or (node.get("log") and node["low"] <= 0):
            raise ConfigError(f"{words}; low below high, and above 0 where log")
        found[entry["key"]] = node
    return found


def spread(space: Mapping[str, Mapping[str, Any]], members: int, seed: int) -> list[dict[str, Any]]:
    """Return a first setting for each member, from a Latin hypercube (McKay et al. 1979).

    Every range is divided into `members` equal parts, one for each member.
    """
    draw = np.random.default_rng(seed)
    found: list[dict[str, Any]] = [{} for _ in range(members)]
    for name, node in space.items():
        shares = (draw.permutation(members) + draw.random(members)) / members
        for member, share in enumerate(shares):
            found[member][name] = value_at(node, float(share))
    return found


def value_at(node: Mapping[str, Any], share: float) -> Any:
    """Return the value at a quantile `share`, from 0 to below 1, of a range or of choices."""
    if "choices" in node:
        return node["choices"][int(share * len(node["choices"]))]
    low, high = node["low"], node["high"]
    value = low * (high / low) ** share if node.get("log") else low + (high - low) * share
    return round(value) if is_whole(node) else float(f"{value:.4g}")


def is_whole(node: Mapping[str, Any]) -> bool:
    """Return whether a node is a range of whole numbers."""
    return isinstance(node["low"], int) and isinstance(node["high"], int)


def within(space: Mapping[str, Mapping[str, Any]], setting: dict[str, Any]) -> dict[str, Any]:
    """Clip a perturbed setting to the ranges and round it to four digits."""
    found = dict(setting)
    for name, node in space.items():
        if "choices" not in node:
            value = min(max(setting[name], node["low"]), node["high"])
            found[name] = math.floor(value + 0.5) if is_whole(node) else float(f"{value:.4g}")
    return found
