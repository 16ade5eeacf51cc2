"""Curriculum: agents learn one environment after another."""

from __future__ import annotations

import numpy as np

from worldmodel.analysis.report.canvas import panels
from worldmodel.analysis.report.cells import format_mean_range
from worldmodel.analysis.report.section import Table
from worldmodel.experiments.benchmark.suite import Cell
from worldmodel.experiments.study_runner import StudyRunner
from worldmodel.training.learning_curve import read_metrics


def curriculum(
    runner: StudyRunner,
    *,
    agents: dict[str, list[str]],
    lessons: dict[str, list[str]],
    common: list[str],
    seeds: list[int],
    threshold: float,
) -> None:
    """Train each agent on the lessons in their order; each lesson resumes the one before, passed or not.

    Args:
        runner: trains the runs and writes the results.
        agents: overrides by name.
        lessons: overrides by name; each sets `total_steps`, counted from the beginning of the first lesson.
        common: overrides of all runs.
        seeds: of each agent.
        threshold: return over the last episodes (`data.stats_window`) at which a lesson is passed and ends.
    """
    passing, rows = [*common, f"stop_return={threshold}"], []
    figure, axes = panels(len(lessons))
    colors = {agent: f"C{i}" for i, agent in enumerate(agents)}
    last: dict[tuple[str, int], Cell] = {}
    for (lesson, overrides), axis in zip(lessons.items(), axes, strict=True):
        cells = []
        for agent, has in agents.items():
            for seed in seeds:  # a checkpoint contains the agent's and the common configuration
                start = [_after(last[agent, seed])] if last else [*passing, *has]
                cells += runner.cells({f"{agent}_{lesson}": [*start, *overrides]}, [], [seed])
        runner.train(cells)
        for agent in agents:
            taken = [c for c in cells if c.method == f"{agent}_{lesson}"]
            runs = [read_metrics(c.folder / "metrics.csv") for c in taken]
            last |= {(agent, c.seed): c for c in taken}
            passed = [r["env_steps"][-1] for r in runs if r["return_ext"][-1] >= threshold]
            steps = f"{np.median(passed):,.0f} [{min(passed):,.0f}, {max(passed):,.0f}]" if passed else "–"
            ended = np.array([r["return_ext"][-1] for r in runs])
            rows.append([lesson, agent, f"{len(passed)} of {len(runs)}", steps, format_mean_range(ended)])
            for i, r in enumerate(runs):
                axis.plot(r["env_steps"], r["return_ext"], color=colors[agent], lw=1, label=None if i else agent)
        axis.axhline(threshold, color="gray", lw=0.8, ls=":")
        axis.set(title=lesson, xlabel="environment steps, all lessons", ylabel="return (last episodes)")
        axis.grid(alpha=0.3)
    axes[0].legend()
    header = [
        "lesson",
        "agent",
        f"seeds ≥ {threshold:g}",
        "steps of those, from the first lesson on",
        "final return",
    ]
    runner.write(
        Table("one world after the other", header, rows),
        f"Steps: median [least, most]; return of the sampling policy while it trains: mean [lowest, highest]. Seeds "
        f"{', '.join(map(str, seeds))}.",
        figure,
    )


def _after(cell: Cell) -> str:
    return f"checkpoint={cell.folder / 'checkpoints' / 'last.ckpt'}"
