"""One section of the report: its numbers, and how they are shown."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure as Canvas

from worldmodel.analysis.report.page import short


@dataclass
class Table:
    """Rows of numbers or words; None is shown as a dash, a pair as an interval."""

    caption: str
    head: list[str]
    rows: list[list[Any]]

    def _repr_markdown_(self) -> str:
        """How a notebook shows it."""
        lines = [self.head, ["---"] * len(self.head), *([short(x) for x in row] for row in self.rows)]
        return f"{self.caption}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


@dataclass
class Figure:
    """A picture with one sentence that says what it shows and how it was computed."""

    caption: str
    png: str  # base64

    @classmethod
    def of(cls, canvas: Canvas, caption: str) -> Figure:
        """A drawing as it is."""
        file = io.BytesIO()
        canvas.savefig(file, format="png", dpi=100)
        return cls(caption, base64.b64encode(file.getvalue()).decode())

    def _repr_png_(self) -> bytes:
        """How a notebook shows it, without the sentence."""
        return base64.b64decode(self.png)


@dataclass
class Film:
    """A film with one sentence that says what it shows."""

    caption: str
    mp4: str  # base64


@dataclass
class Section:
    """`numbers` go into report.json under the part's name."""

    title: str
    numbers: dict[str, Any]
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    films: list[Film] = field(default_factory=list)

    def _ipython_display_(self) -> None:
        """How a notebook shows it, without the films."""
        from IPython.display import Markdown, display

        display(Markdown(f"### {self.title}"))
        for figure in self.figures:
            display(figure, Markdown(f"*{figure.caption}*"))
        for table in self.tables:
            display(table)


def canvas(panels: int = 1, width: float = 4.2, height: float = 3.0) -> tuple[Canvas, list[Any]]:
    """A drawing of panels in a row (inches each), and their axes; pyplot's global state is left alone."""
    drawing = Canvas(figsize=(width * panels, height), layout="constrained")
    axes = drawing.subplots(1, panels, squeeze=False)[0]
    for axis in axes:
        axis.grid(alpha=0.3)
    return drawing, list(axes)
