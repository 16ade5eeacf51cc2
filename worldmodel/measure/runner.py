"""Runner of commands with several parts, which writes `<name>.json` and `<name>.md` after each part."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from worldmodel.analysis.report.section import Table
from worldmodel.errors import ConfigError, check_range
from worldmodel.files import write_json, write_text
from worldmodel.training.run_record import RunRecord

Part = Callable[[Path, float], dict[str, Any]]
"""Called with an empty folder and the scale of its numbers of trials; returns figures that are valid JSON."""


def measure(
    name: str, title: str, parts: Mapping[str, Part], chosen: Sequence[str] | None, scale: float, out: Path
) -> dict[str, Any]:
    """Run the chosen parts (None: all) of `worldmodel.<name>`; write and return the content of <name>.json.

    Parts that are not run keep their figures in the file. If a part fails, the others still run, and its error is
    raised at the end. Raises ConfigError for unknown parts and a scale that is not positive.
    """
    check_range("scale", scale, "(0, inf)")
    chosen = list(parts if chosen is None else chosen)
    unknown = sorted(set(chosen) - parts.keys())
    if unknown or not chosen:
        raise ConfigError(f"parts={unknown}: allowed are null, {', '.join(parts)}")
    path = out / f"{name}.json"
    failures: list[Exception] = []
    for part in chosen:
        began = time.monotonic()
        try:
            with tempfile.TemporaryDirectory() as folder:
                figures = parts[part](Path(folder), scale)
        except Exception as error:  # of any kind
            print(f"{part}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            failures.append(error)
            continue
        print(f"{part}: {time.monotonic() - began:.0f} s", flush=True)
        made = RunRecord(out, seed=0).data
        about = {"scale": scale, "seconds": round(time.monotonic() - began, 1), "git": made["git"]}
        report: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}  # reread: others may write to it
        report[part] = {**about, "machine": made["machine"], "packages": made["packages"], "figures": figures}
        write_json(path, report)
        write_text(out / f"{name}.md", markdown(name, title, parts, report))
    if failures:
        raise failures[0]
    return report


def markdown(name: str, title: str, parts: Mapping[str, Part], report: Mapping[str, Any]) -> str:
    """Return the report as Markdown: the figures of a part as a list, or as a table if they are rows of equal keys."""
    lines = [f"# {title}", "", f"Written by `python -m worldmodel.{name}`; the figures are those found."]
    for part in [*(x for x in parts if x in report), *(report.keys() - parts.keys())]:
        found = report[part]
        about = (parts[part].__doc__ or "") if part in parts else ""
        lines += ["", f"## {part}", "", " ".join(about.split())]
        tables = {key: rows for key, rows in found["figures"].items() if isinstance(rows, list) and rows}
        tables = {key: rows for key, rows in tables.items() if all(isinstance(row, dict) for row in rows)}
        plain = {key: value for key, value in found["figures"].items() if key not in tables}
        if plain:
            rows = [[key, value] for key, value in _rows(plain, "") if not key.startswith("errors")]
            lines += ["", Table("", ["figure", "value"], rows).markdown()]
        for rows in tables.values():
            cells = [[_format(row.get(key)) for key in rows[0]] for row in rows]
            lines += ["", Table("", list(rows[0]), cells).markdown()]
        machine = found["machine"]
        where = f"{machine['cores']} cores ({machine['cpu']})" + (
            f" and {machine['gpu']}" if machine.get("gpu") else ""
        )
        lines += ["", f"scale {found['scale']}, {found['seconds']} s on {where}, {found['git']}"]
    return "\n".join(lines) + "\n"


def _rows(node: Any, path: str) -> list[tuple[str, Any]]:
    if isinstance(node, dict):
        return [row for key, value in node.items() for row in _rows(value, f"{path}.{key}" if path else str(key))]
    return [(path, _format(node))]


def _format(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
