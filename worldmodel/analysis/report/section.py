"""Sections of a report: numbers, text, tables, figures and films. Every report of this package consists of these."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure as Canvas
from rich.table import Table as RichTable

from worldmodel.analysis.report.cells import format_cell
from worldmodel.files import atomic_write, write_csv, write_text


@dataclass
class Table:
    """Rows of numbers or words under a caption; see `format_cell` for None and pairs."""

    caption: str
    header: list[str]
    rows: list[list[Any]]

    def markdown(self) -> str:
        """Return the header and the rows as Markdown, without the caption."""
        head, *body = (f"| {' | '.join(map(format_cell, line))} |" for line in (self.header, *self.rows))
        return "\n".join([head, "|---" * len(self.header) + "|", *body])

    def rich(self) -> RichTable:
        """Return the table for the terminal."""
        table = RichTable(*self.header, title=self.caption, title_justify="left")
        for row in self.rows:
            table.add_row(*map(format_cell, row))
        return table

    def _repr_markdown_(self) -> str:
        """Return the table for a notebook."""
        return f"{self.caption}\n\n{self.markdown()}"


@dataclass
class Figure:
    """A picture; the caption describes its content and its computation. `size` is `small`, `half` or full width."""

    caption: str
    png: str  # base64
    size: Literal["small", "half", ""] = ""

    @classmethod
    def of(cls, canvas: Canvas, caption: str = "", dpi: int = 100, size: Literal["small", "half", ""] = "") -> Figure:
        """Draw a matplotlib figure."""
        file = io.BytesIO()
        canvas.savefig(file, format="png", dpi=dpi)
        return cls(caption, base64.b64encode(file.getvalue()).decode(), size)

    def _repr_png_(self) -> bytes:
        """Return the picture without its caption, as bytes of a PNG."""
        return base64.b64decode(self.png)


@dataclass
class Film:
    """A film and its caption."""

    caption: str
    mp4: str  # base64


@dataclass
class Section:
    """A title with text, figures, films and tables. `numbers` are the section's entry in report.json."""

    title: str
    numbers: dict[str, Any] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    films: list[Film] = field(default_factory=list)
    text: str = ""

    def _ipython_display_(self) -> None:
        """Display the section in a notebook, without its films."""
        from IPython.display import Markdown, display

        display(Markdown(f"### {self.title}"))
        for figure in self.figures:
            display(figure, Markdown(f"*{figure.caption}*"))
        for table in self.tables:
            display(table)

    def write(self, folder: Path) -> None:
        """Write a section of one table and one figure as table.csv, table.md (with the text as notes) and plot.png."""
        (table,), (figure,) = self.tables, self.figures
        write_csv(folder / "table.csv", [table.header, *table.rows])
        write_text(folder / "table.md", f"**{table.caption}**\n\n{table.markdown()}\n\n{self.text}\n")
        atomic_write(folder / "plot.png", lambda file: file.write(figure._repr_png_()))
