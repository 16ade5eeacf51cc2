"""The machine learning reproducibility checklist, answered from the records of the runs.

Pineau et al. (2020), Improving reproducibility in machine learning research, version 2.0 of the list: the parts on
experimental results and on code. The parts that no run can answer (theory, descriptions of models) are omitted. The
answer to an item without a record is `not recorded`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from worldmodel.experiments.benchmark.provenance import machine_text
from worldmodel.experiments.benchmark.results import Results


class Item(NamedTuple):
    """A question of the list and its answer: yes, partly, no, or not recorded."""

    question: str
    answer: str
    evidence: str


def checklist(results: Results, made: dict[str, Any] | None) -> list[Item]:
    """Answer the items from results.csv and, where it exists, benchmark.json."""
    counts = {(e, m): len(results.values("score", e, m)) for e in results.envs for m in results.methods}
    counts = {k: n for k, n in counts.items() if n}
    ended = sum(int(results.values("finished", e, m).sum()) for e, m in counts)
    runs, fewest = sum(counts.values()), min(counts.values())
    answers = [
        Item(
            "The exact number of training runs",
            "yes" if ended == runs else "partly",
            f"{runs} runs: {len(results.methods)} methods in {len(results.envs)} environments, "
            f"{_span(counts.values())} seeds each; {ended} ended as configured"
            + ("" if ended == runs else ", the others count with their last values"),
        ),
        Item(
            "The measure and the statistics used to report results, clearly defined",
            "yes",
            f"{results.metric} at the end of the budget, scaled to a score of 0 to 1 by the suite's range; "
            "interquartile mean, probability of improvement, performance profiles: as in Agarwal et al. (2021).",
        ),
        Item(
            "Central tendency and variation (error bars), and what they mean",
            "yes" if fewest >= 5 else "partly",
            "Interquartile mean with 95 % percentile bootstrap intervals over seeds, stratified over environments."
            + ("" if fewest >= 5 else f" With {fewest} seeds in a cell the intervals are too narrow to be trusted."),
        ),
    ]
    return answers + (_recorded(made) if made else _not_recorded())


QUESTIONS = (
    "Specification of all hyper-parameters used to generate results",
    "The range of hyper-parameters considered, and how the best were selected",
    "The exact number of evaluation runs",
    "The average runtime of each result",
    "The computing infrastructure",
    "The code, and the version that made the results",
    "Specification of dependencies",
    "Commands that produce the results",
)


def _recorded(made: dict[str, Any]) -> list[Item]:
    dirty = [g for g in made["git"] if g.endswith("-dirty") or g == "None"]
    runtime = (
        f"{made['wall_s'] / max(made['runs'], 1):.0f} s a run on average, {made['wall_s'] / 3600:.2f} hours in all"
    )
    evaluation = made["evaluation"]
    answers = (
        ("yes", "Overrides of each method are listed below; each run folder's config.yaml has every value."),
        ("no", "This benchmark has no search. The choice of the defaults is not part of its record."),
        ("yes", "None: scores are those of the training itself." if evaluation is None else
         f"One for each training run: {' '.join(evaluation) or 'defaults'}."),
        ("yes" if made["runs"] else "not recorded", f"{runtime}; one thread a process, several side by side."),
        ("yes" if made["machines"] else "not recorded", machine_text(made)),
        ("partly" if dirty or not made["git"] else "yes",
         f"{', '.join(made['git'])}" + (": uncommitted changes or no git record at some runs." if dirty else "")),
        ("yes" if made["packages"] else "not recorded",
         "; ".join(", ".join(f"{k} {v}" for k, v in p.items()) for p in made["packages"])),
        ("yes", f"python -m worldmodel.benchmark suite={made['suite']}; a run folder's cell.json has its overrides."),
    )  # fmt: skip
    return [Item(q, *a) for q, a in zip(QUESTIONS, answers, strict=True)]


def _not_recorded() -> list[Item]:
    return [Item(q, "not recorded", "There is no benchmark.json beside results.csv.") for q in QUESTIONS]


def _span(counts: Any) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"
