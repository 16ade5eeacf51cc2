"""The result of one evaluated checkpoint, and the page of one or several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from worldmodel.analysis.report.page import Row, render_page
from worldmodel.analysis.report.section import Section, Table

HEADLINE = ("env_steps", "return_mean", "return_ci", "success", "length")


class CheckpointResult(NamedTuple):
    """A checkpoint's numbers, as in report.json, and its sections by name."""

    label: str
    numbers: dict[str, Any]
    sections: dict[str, Section]


def checkpoint_page(found: Sequence[CheckpointResult], report: dict[str, Any]) -> str:
    """Render the page of one checkpoint, or of several side by side; `report` has the keys that they share."""
    titles = {part: section.title for result in found for part, section in result.sections.items()}
    rows = [Row(part, title, [result.sections.get(part) for result in found]) for part, title in titles.items()]
    packages = ", ".join(f"{name} {version}" for name, version in report["packages"].items())
    return render_page(
        title=" · ".join(result.label for result in found),
        heading="Checkpoint report" if len(found) == 1 else "Checkpoints compared",
        text=f"{' · '.join(result.numbers['checkpoint'] for result in found)}. {report['episodes']} episodes of each "
        f"behaviour, seed {report['seed']}, {report['num_envs']} environments in parallel.",
        rows=[Row.of(overview(found)), *rows],
        columns=[result.label for result in found],
        footer=f"Code {report['git']}; {report['machine']['cpu']}, {report['machine']['device']}; {packages}; computed "
        f"in {report['wall_s']} s. All numbers are in report.json; the same arguments reproduce them.",
    )


def overview(found: Sequence[CheckpointResult]) -> Section:
    """Return the headline numbers, a column for each checkpoint."""
    skills = list(dict.fromkeys(h for result in found for h in result.numbers["delta_skill"]))
    rows = [[key.replace("_", " "), *(result.numbers[key] for result in found)] for key in HEADLINE]
    rows += [[f"skill, {h} ahead", *(result.numbers["delta_skill"].get(h) for result in found)] for h in skills]
    return Section(
        "Overview",
        text="The agent's own, sampled policy: return with its 95 % interval, share of successes, length in steps; "
        "then the world model's skill by horizon, 1 - squared error / that of predicting no change, open loop.",
        tables=[Table("", ["", *(result.label for result in found)], rows)],
    )
