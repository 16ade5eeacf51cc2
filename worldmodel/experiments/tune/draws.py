"""Draws of settings that all signals share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from worldmodel.errors import ConfigError
from worldmodel.experiments.population.space import by_key, spread, value_at
from worldmodel.files import write_csv

BLOCK = 4  # draws of a Latin hypercube; more draws are further hypercubes, so that the first ones stay
OWN = "own_quantile"  # in draws.csv: where in the range of its own setting a signal is


class Draw(NamedTuple):
    """Values of the common settings, and the quantile of a signal's own one. The shipped preset has neither."""

    number: int
    values: dict[str, Any]
    own: float | None

    def overrides(self, own: Mapping[str, Any] | None) -> list[str]:
        """Return the overrides of a run, given the range of the signal's own setting."""
        words = [f"{key}={_word(value)}" for key, value in self.values.items()]
        if self.own is not None and own is not None:
            words += [f"{key}={_word(value_at(node, self.own))}" for key, node in by_key([own], "own").items()]
        return words


def make_draws(space: Sequence[Mapping[str, Any]], trials: int, seed: int) -> list[Draw]:
    """Return the shipped preset and `trials` - 1 draws; more trials keep the draws of fewer ones.

    Raises ConfigError for a bad space.
    """
    ranges = {**by_key(space), OWN: {"low": 0.0, "high": 1.0}}
    blocks = [spread(ranges, BLOCK, seed + i) for i in range(-(-(trials - 1) // BLOCK))]
    drawn = [values for block in blocks for values in block][: trials - 1]
    return [Draw(0, {}, None), *(Draw(i, x, x.pop(OWN)) for i, x in enumerate(drawn, 1))]


def write_draws(path: Path, draws: Sequence[Draw], keys: Sequence[str]) -> None:
    """Write draws.csv. Cells of the shipped preset are empty. Raises ConfigError where the file has other draws."""
    rows = [
        ["draw", *keys, OWN],
        *([d.number, *(_word(d.values.get(k, "")) for k in keys), _word(d.own)] for d in draws),
    ]
    if path.exists():
        lines = [line.split(",") for line in path.read_text().splitlines()]
        if any(before != [str(x) for x in now] for before, now in zip(lines, rows, strict=False)):
            raise ConfigError(f"out={path.parent}: was tuned with other draws ({path.name}), choose another out")
        if len(lines) >= len(rows):
            return
    write_csv(path, rows)


def _word(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
