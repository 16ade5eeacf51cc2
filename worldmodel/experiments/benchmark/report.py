"""results.csv -> report.html, summary.md and curves.png."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader

from worldmodel.experiments.benchmark import plots, tables
from worldmodel.experiments.benchmark.checklist import checklist
from worldmodel.experiments.benchmark.provenance import in_words
from worldmodel.experiments.benchmark.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class Section:
    """A heading, a sentence that says what is shown, and what is shown."""

    title: str
    says: str
    tables: list[tables.Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)


def write_report(folder: Path) -> Results:
    """Build the report from DIR/results.csv; how it was made comes from DIR/benchmark.json, where there is one.

    Raises ConfigError where the CSV is missing or not one of ours.
    """
    results = Results.read(folder / "results.csv")
    record = folder / "benchmark.json"
    made: dict[str, Any] | None = json.loads(record.read_text()) if record.exists() else None
    shown = sections(results)
    if shown[0].figures:
        (folder / "curves.png").write_bytes(_png(shown[0].figures[0]))
    words = in_words(made) if made else "How these figures were made is not recorded: there is no benchmark.json."
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters["inline"] = lambda figure: base64.b64encode(_png(figure)).decode()
    page = templates.get_template("report.html.j2").render(
        suite=results.suite, words=words, sections=shown, checklist=checklist(results, made), made=made
    )
    (folder / "report.html").write_text(page)
    overviews = [tables.overview(results, env) for env in results.envs]
    if len(overviews) == 1:
        body = overviews[0].markdown()
    else:
        overviews += [t for t in (tables.aggregate(results), tables.television(results)) if t]
        body = "\n\n".join(f"**{t.title}**\n\n{t.markdown()}" for t in overviews)
    (folder / "summary.md").write_text(f"{body}\n\n{words}\n")
    return results


def sections(results: Results) -> list[Section]:
    """What the report shows, in order."""
    shown = [
        Section(
            "Learning curves",
            "Interquartile mean over seeds with its pointwise 95 % bootstrap interval; a run that ended early keeps "
            "its last value.",
            figures=[
                plots.learning_curves(results, name)
                for name in results.curve_names
                if any(key[0] == name for key in results.cells)
            ],
        ),
        Section(
            "At the end",
            "Final value of the suite's metric in each environment: interquartile mean over seeds [95 % interval].",
            [tables.overview(results, env) for env in results.envs],
        ),
        Section(
            "Over all environments",
            "Scores are 0 at the bottom and 1 at the top of the suite's range. Bars are 95 % intervals, stratified "
            "over environments. The optimality gap is how far the runs fall short of 1 on average (lower is better).",
            [tables.aggregate(results)],
            [plots.intervals(results)],
        ),
        Section(
            "Probability of improvement",
            "How likely a run of the row's method is to score higher than one of the column's in the same environment, "
            "averaged over environments; a tie counts half.",
            [tables.improvements(results)],
        ),
        Section(
            "Performance profiles",
            "Share of all runs that score above a threshold: a curve that lies above another is better at every level.",
            figures=[plots.profiles(results)],
        ),
        Section(
            "Brittleness",
            "How far the seeds of a method lie apart, and the share of them that never reached the threshold (failed). "
            "Unfinished runs crashed or were stopped, and count with what they have.",
            [tables.brittleness(results, env) for env in results.envs],
            [plots.seeds(results)],
        ),
    ]
    if reached := [t for env in results.envs if (t := tables.to_threshold(results, env))]:
        says = "Environment steps and wall-clock until the threshold; seeds that never reach it are infinitely slow."
        shown.append(Section("Steps and seconds to the threshold", says, reached))
    if covered := [t for env in results.envs if (t := tables.coverage(results, env))]:
        says = "Coverage at the end, and its mean over the budget (the area under the coverage curve)."
        shown.append(Section("Coverage", says, covered))
    if watched := tables.television(results):
        says = "How many of the actions are the TV's: at the end (the last update) and in the whole run."
        shown.append(Section("Noisy TV", says, [watched]))
    if judged := [t for env in results.envs if (t := tables.evaluated(results, env))]:
        says = "The trained agents on episodes that no training has seen: mean ± standard deviation over seeds."
        shown.append(Section("Evaluated after the training", says, judged))
    says = "Last values and areas under curves: mean ± standard deviation over seeds."
    return [*shown, Section("Everything else", says, [tables.finals(results, env) for env in results.envs])]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
