"""Report of a benchmark from results.csv: report.html, summary.md and curves.png."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from worldmodel.analysis.report.page import Row, render_page
from worldmodel.analysis.report.section import Figure, Section, Table
from worldmodel.experiments.benchmark import plots, tables
from worldmodel.experiments.benchmark.checklist import checklist
from worldmodel.experiments.benchmark.provenance import provenance_text
from worldmodel.experiments.benchmark.results import Results
from worldmodel.files import atomic_write, write_text


def write_report(folder: Path) -> Results:
    """Write the report of DIR/results.csv; its provenance is DIR/benchmark.json, where that exists.

    Raises ConfigError where the CSV is missing or has other columns.
    """
    results = Results.read(folder / "results.csv")
    record = folder / "benchmark.json"
    made: dict[str, Any] | None = json.loads(record.read_text()) if record.exists() else None
    shown = sections(results)
    if any(key[0] == results.metric and rows for key, rows in results.cells.items()):
        picture = Figure.of(plots.learning_curves(results, results.metric))._repr_png_()
        atomic_write(folder / "curves.png", lambda file: file.write(picture))
    words = (
        provenance_text(made)
        if made
        else "The provenance of these figures is not recorded: there is no benchmark.json."
    )
    shown += [reproducibility(results, made), *([runs(made)] if made else [])]
    page = render_page(
        f"{results.suite}: benchmark", results.suite, words, [Row.of(section) for section in shown], sortable=True
    )
    write_text(folder / "report.html", page)
    overviews = [tables.overview(results, env) for env in results.envs]
    if len(overviews) == 1:
        body = overviews[0].markdown()
    else:
        overviews += [t for t in (tables.aggregate(results), tables.television(results)) if t]
        body = "\n\n".join(f"**{t.caption}**\n\n{t.markdown()}" for t in overviews)
    write_text(folder / "summary.md", f"{body}\n\n{words}\n")
    return results


def reproducibility(results: Results, made: dict[str, Any] | None) -> Section:
    """Return the checklist as a table."""
    rows = [list(item) for item in checklist(results, made)]
    return Section(
        "Reproducibility checklist",
        text="After Pineau et al. (2020), answered from the records of these runs.",
        tables=[Table("", ["question", "answer", "evidence"], rows)],
    )


def runs(made: dict[str, Any]) -> Section:
    """Return the methods that ran in each environment, with their seeds and overrides."""
    rows = [
        [name, row["env"], row["budget"], " ".join(map(str, row["seeds"])), " ".join(row["overrides"])]
        for name, row in made["methods"].items()
    ]
    return Section(
        "Runs",
        text=f"{made['finished']} of {made['cells']} cells finished; {made['date']}.",
        tables=[Table("", ["environment / method", "id", "budget", "seeds", "overrides"], rows)],
    )


def sections(results: Results) -> list[Section]:
    """Return the sections of the comparison, in the order of the page."""
    shown = [
        Section(
            "Methods",
            text="A click on a column's title sorts. Failed seeds never reached the threshold. Steps are median "
            "[lowest, highest] over seeds, the return is the interquartile mean at the end [95 % interval], P is the "
            "probability that a run scores higher than one of the named method, the rest are means over seeds of last "
            "values. CPU and memory are those of the training process.",
            tables=[
                table
                for env in results.envs
                for table in (tables.by_method(results, env), tables.behaviour(results, env))
                if table
            ],
        ),
        Section(
            "Learning curves",
            text="Interquartile mean over seeds with its pointwise 95 % bootstrap interval; a run that ended early "
            "keeps its last value.",
            figures=[
                Figure.of(plots.learning_curves(results, name, [env]), size="half")
                for name in results.curve_names
                for env in results.envs
                if any(key[:2] == (name, env) for key in results.cells)
            ],
        ),
        *(
            Section(
                f"Each method in {env}",
                text=f"The method's {results.metric} with its 95 % interval (orange), none (grey) and "
                f"{results.default} (blue) over environment steps.",
                figures=[Figure.of(x, dpi=110, size="small") for x in plots.small_multiples(results, env)],
            )
            for env in results.envs
            if len(results.methods) > 2 and (results.metric, env, results.default) in results.cells
        ),
        Section(
            "Over all environments",
            text="Scores are 0 at the bottom and 1 at the top of the suite's range. Bars are 95 % intervals, "
            "stratified over environments. The optimality gap is the mean shortfall from 1 (lower is better).",
            tables=[tables.aggregate(results)],
            figures=[Figure.of(plots.intervals(results), size="half")],
        ),
        Section(
            "Probability of improvement",
            text="Probability that a run of the row's method scores higher than one of the column's in the same "
            "environment, averaged over environments; a tie counts half.",
            tables=[
                tables.improvements(results)
                if len(results.methods) <= tables.FEW
                else tables.against_references(results)
            ],
        ),
        Section(
            "Performance profiles",
            text="Share of all runs that score above a threshold; a higher curve is better.",
            figures=[Figure.of(plots.profiles(results), size="half")],
        ),
        Section(
            "Brittleness",
            text="Spread of the seeds of a method, and the share of seeds that never reached the threshold (failed). "
            "Unfinished runs crashed or were stopped, and count with their last values.",
            tables=[tables.brittleness(results, env) for env in results.envs],
            figures=[Figure.of(plots.seeds(results, env), size="half") for env in results.envs],
        ),
    ]
    if reached := [t for env in results.envs if (t := tables.to_threshold(results, env))]:
        text = "Environment steps and wall-clock until the threshold; seeds that never reach it are infinitely slow."
        text += " The line covers the seeds, the point is the median; an arrow marks seeds that never reach it."
        pictures = [
            Figure.of(plots.steps_to_threshold(results, env), size="half")
            for env in results.envs
            if results.only("threshold", env) is not None
        ]
        shown.append(Section("Steps and seconds to the threshold", text=text, tables=reached, figures=pictures))
    if covered := [t for env in results.envs if (t := tables.coverage(results, env))]:
        text = "Coverage at the end, and its mean over the budget (the area under the coverage curve)."
        shown.append(Section("Coverage", text=text, tables=covered))
    if watched := tables.television(results):
        text = "Share of the TV's actions: at the end (the last update) and in the whole run."
        shown.append(Section("Noisy TV", text=text, tables=[watched]))
    if evaluated := [t for env in results.envs if (t := tables.evaluated(results, env))]:
        text = "The trained agents on episodes that no training uses: mean ± standard deviation over seeds."
        shown.append(Section("Evaluated after the training", text=text, tables=evaluated))
    text = "Last values and areas under curves: mean ± standard deviation over seeds."
    return [*shown, Section("Everything else", text=text, tables=[tables.finals(results, env) for env in results.envs])]
