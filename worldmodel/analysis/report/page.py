"""The HTML page of every report: one file without external resources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from worldmodel.analysis.report.cells import format_cell
from worldmodel.analysis.report.section import Section

LONG = 60  # characters of a cell, from which on it wraps


@dataclass
class Row:
    """Sections side by side, one for each column of the page; None leaves a column empty.

    A single section takes the whole width. `anchor` is the link target of the navigation.
    """

    anchor: str
    title: str
    sections: Sequence[Section | None]

    @classmethod
    def of(cls, section: Section) -> Row:
        """Return a row of one section."""
        return cls(section.title.lower().replace(" ", "_"), section.title, [section])


def render_page(
    title: str,
    heading: str,
    text: str,
    rows: Sequence[Row],
    columns: Sequence[str] = ("",),
    footer: str = "",
    sortable: bool = False,
) -> str:
    """Render the page: a heading with its text, a navigation, the rows, and a footer. `columns` are labels.

    With `sortable`, a short script sorts a table by the column whose title is clicked.
    """
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    templates.filters["format_cell"] = format_cell
    return templates.get_template("page.html.j2").render(
        title=title,
        heading=heading,
        text=text,
        rows=rows,
        columns=columns,
        footer=footer,
        long=LONG,
        sortable=sortable,
    )
