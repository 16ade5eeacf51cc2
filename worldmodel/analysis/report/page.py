"""report.html: one file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

if TYPE_CHECKING:
    from worldmodel.analysis.report.report import Judged

HEADLINE = ("env_steps", "return_mean", "return_ci", "success", "length")


def page(found: Sequence[Judged], report: dict[str, Any]) -> str:
    """The page of one judged checkpoint, or of several side by side; `report` has what they share."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    templates.filters["short"] = short
    titles = {part: section.title for judged in found for part, section in judged.sections.items()}
    skills = list(dict.fromkeys(h for judged in found for h in judged.numbers["delta_skill"]))
    rows = [(key, [judged.numbers[key] for judged in found]) for key in HEADLINE]
    rows += [(f"skill, {h} ahead", [judged.numbers["delta_skill"].get(h) for judged in found]) for h in skills]
    return templates.get_template("page.html.j2").render(found=found, report=report, titles=titles, rows=rows)


def short(value: Any) -> str:
    """A number, an interval or a word for a table's cell."""
    if value is None:
        return "–"
    if isinstance(value, list | tuple):
        return " … ".join(short(x) for x in value)
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}" if value == 0 or 0.01 <= abs(value) < 1e5 else f"{value:.2e}"
