"""Reader of metrics.csv that leaves out damaged rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class MetricsFile(NamedTuple):
    """Content of a metrics.csv."""

    columns: list[str]  # empty where the header is damaged
    rows: list[dict[str, str]]  # complete rows, each with a number or nothing in every column
    damaged: int  # number of other rows, without a cut-off last one


def read_metrics_file(path: Path) -> MetricsFile:
    """Read a metrics.csv. A process that was killed may have left a partial last row; a crash, other damage.

    A row counts as damaged if it has another number of cells than the header, a cell that is not a number, or fewer
    steps than the row before.
    """
    text = path.read_bytes().decode(errors="replace") if path.exists() else ""
    lines = text[: text.rfind("\n") + 1].splitlines()
    columns = next(csv.reader(lines[:1]), [])
    if "env_steps" not in columns or len(set(columns)) < len(columns):
        return MetricsFile([], [], len(lines))
    rows: list[dict[str, str]] = []
    damaged = 0
    for line in lines[1:]:
        cells = next(csv.reader(io.StringIO(line)), [])
        row = dict(zip(columns, cells, strict=False))
        good = len(cells) == len(columns) and all(map(_is_number, cells)) and bool(row["env_steps"])
        if good and (not rows or steps_of(row) > steps_of(rows[-1])):
            rows.append(row)
        else:
            damaged += 1
    return MetricsFile(columns, rows, damaged)


def steps_of(row: Mapping[str, Any]) -> float:
    """Return the steps of a row that `total_steps` limits: in environments and, of offline runs, recorded ones."""
    return float(row["env_steps"]) + float(row.get("offline_steps") or 0)


def _is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return False
    return True
