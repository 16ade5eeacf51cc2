"""Does an agent learn a hard world by way of an easier one, and what must it have for that?"""

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
    """Each agent takes the lessons one after the other, and goes on from a lesson's end, whether it passed or not.

    lessons: overrides by name; each must set `total_steps`, counted from the first lesson's beginning. A lesson ends
    early once the return over the last episodes (`data.stats_window`) is `threshold`.
    """
    passing, rows = [*common, f"stop_return={threshold}"], []
    figure, axes = panels(len(lessons))
    colors = {agent: f"C{i}" for i, agent in enumerate(agents)}
    last: dict[tuple[str, int], Cell] = {}
    for (lesson, overrides), axis in zip(lessons.items(), axes, strict=True):
        cells = []
        for agent, has in agents.items():
            for seed in seeds:  # a checkpoint brings the agent's and the common configuration along
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
        "return at its end",
    ]
    runner.write(
        Table("one world after the other", header, rows),
        f"Steps: median [least, most]; return of the sampling policy while it trains: mean [lowest, highest]. Seeds "
        f"{', '.join(map(str, seeds))}.",
        figure,
    )


def _after(cell: Cell) -> str:
    return f"checkpoint={cell.folder / 'checkpoints' / 'last.ckpt'}"
