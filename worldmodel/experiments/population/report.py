"""Report of a population: lineage, hyperparameters, and comparison with fixed hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from worldmodel.analysis.report.canvas import panels
from worldmodel.analysis.report.section import Figure, Section, Table
from worldmodel.experiments.benchmark.results import area
from worldmodel.experiments.population.member import Plan, lineage
from worldmodel.files import write_csv
from worldmodel.training.learning_curve import read_metrics


def write_report(plan: Plan, space: Mapping[str, Mapping[str, Any]], members: int, fixed: Sequence[Path] = ()) -> Table:
    """Write lineage.csv, table.csv, table.md and plot.png in the population's folder.

    `fixed` are run folders of each member's first hyperparameters, without changes.
    """
    rows = [row for member in range(members) for row in lineage(plan.folder(member) / "lineage.csv")]
    rows.sort(key=lambda row: (int(row["interval"]), int(row["member"])))
    write_csv(plan.out / "lineage.csv", [list(rows[0]), *(list(row.values()) for row in rows)])
    table = _table(plan, list(space), rows, fixed)
    copies = [row for row in rows if row["parent"] not in ("", row["member"])]
    words = "; ".join(f"{r['member']} from {r['parent']} at {int(r['from_steps']):,}" for r in copies) or "none"
    notes = (
        f"{members} members of {plan.total_steps:,} environment steps each ({' '.join(plan.overrides)}), seeds "
        f"{plan.seed} to {plan.seed + members - 1}; compared every {plan.interval:,} steps by {plan.metric}. Copies "
        f"(member from member at steps): {words}."
    )
    figure = Figure.of(_plot(plan, space, members, rows, fixed), dpi=110)
    Section(table.caption, tables=[table], figures=[figure], text=notes).write(plan.out)
    return table


def _table(plan: Plan, names: list[str], rows: list[dict[str, Any]], fixed: Sequence[Path]) -> Table:
    """Return a line for each run: the final metric, its mean over the budget, and the hyperparameters."""
    lines, ends = [], {}
    for member in sorted({int(row["member"]) for row in rows}):
        last = [row for row in rows if int(row["member"]) == member][-1]
        ends[f"member {member}"] = plan.folder(member), [last[name] for name in names]
    for i, folder in enumerate(fixed):
        first = next(row for row in rows if int(row["member"]) == i)
        ends[f"fixed {i}"] = folder, [first[name] for name in names]
    for run, (folder, settings) in ends.items():
        metrics = read_metrics(folder / "metrics.csv")
        mean = area(metrics["env_steps"], metrics[plan.metric], plan.total_steps, 0.0)
        lines.append([run, f"{metrics[plan.metric][-1]:.3f}", f"{mean:.3f}", *settings])
    header = ["run", f"{plan.metric} at the end", "mean over the budget", *names]
    title = "a population, and its first hyperparameters without changes" if fixed else "a population"
    return Table(title, header, lines)


def _plot(
    plan: Plan, space: Mapping[str, Mapping[str, Any]], members: int, rows: list[dict[str, Any]], fixed: Sequence[Path]
) -> Any:
    figure, axes = panels(1 + len(space))
    for i in range(members):
        mine = [row for row in rows if int(row["member"]) == i]
        metrics = read_metrics(plan.folder(i) / "metrics.csv")
        axes[0].plot(metrics["env_steps"], metrics[plan.metric], color=f"C{i % 10}", label=f"member {i}")
        for axis, (name, node) in zip(axes[1:], space.items(), strict=True):
            values = [row[name] for row in mine]
            values = list(map(str, values)) if "choices" in node else [float(x) for x in values]
            steps = [int(row["from_steps"]) for row in mine]
            axis.step([*steps, int(mine[-1]["to_steps"])], [*values, values[-1]], where="post", color=f"C{i % 10}")
            for row, value in zip(mine, values, strict=True):
                if row["parent"] not in ("", row["member"]):
                    parent = int(row["parent"])
                    axis.plot(int(row["from_steps"]), value, "o", color=f"C{i % 10}", mec=f"C{parent % 10}", mew=2)
    for i, folder in enumerate(fixed):
        metrics = read_metrics(folder / "metrics.csv")
        label = "first hyperparameters" if i == 0 else None
        axes[0].plot(metrics["env_steps"], metrics[plan.metric], color=f"C{i % 10}", ls=":", label=label)
    axes[0].set(xlabel="environment steps of a member", ylabel=plan.metric)
    axes[0].legend(fontsize=8)
    for axis, (name, node) in zip(axes[1:], space.items(), strict=True):
        axis.set(xlabel="environment steps of a member", ylabel=name, yscale="log" if node.get("log") else "linear")
        axis.set_title("a dot: a copy of the member in the rim's colour", fontsize=8)
    for axis in axes:
        axis.grid(alpha=0.3)
    return figure
