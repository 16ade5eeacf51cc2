"""Negative bias: effect of exploration without reward on learning the task."""

from __future__ import annotations

import numpy as np
import torch

from worldmodel.analysis.report.canvas import panels
from worldmodel.analysis.report.cells import format_mean_range
from worldmodel.analysis.report.section import Table
from worldmodel.analysis.statistics import band
from worldmodel.experiments.behaviour import COPIES, TEST_SEEDS
from worldmodel.experiments.benchmark.suite import Cell
from worldmodel.experiments.study_runner import StudyRunner
from worldmodel.learner.run_episodes import EpisodeStats, freeze, run_episodes
from worldmodel.training.build import build_env
from worldmodel.training.compose import compose_config
from worldmodel.training.config import bad_input
from worldmodel.training.learning_curve import read_metrics
from worldmodel.training.loading import load_agent

POINTS = 100  # of a learning curve


def negative_bias(
    runner: StudyRunner,
    *,
    common: list[str],
    pretraining: int,
    steps: int,
    levels: int,
    sticky: float,
    seeds: list[int],
    episodes: int,
) -> None:
    """Compare three agents on the task, on their training levels and on held-out levels.

    - `pretrained` has explored for `pretraining` steps, without reward for its policy and its reward head.
    - `scratch` has not explored before.
    - `longer` has not explored before, and trains for the steps of both phases together.

    Args:
        runner: trains the runs and writes the results.
        common: overrides of all runs.
        pretraining: environment steps of exploration.
        steps: environment steps on the task.
        levels: number of training levels.
        sticky: probability that an action is repeated.
        seeds: of each agent.
        episodes: of each test.
    """
    world = [*common, f"env.levels={levels}", f"env.sticky={sticky}"]
    cfg = compose_config(world, purpose="study.common")
    methods = {
        "exploration": ["policy.objective.weight_ext=0.0", "weights.rew=0.0", f"total_steps={pretraining}"],
        "scratch": [f"total_steps={steps}"],
        "longer": [f"total_steps={pretraining + steps}"],
    }
    cells = runner.cells(methods, world, seeds)
    runner.train(cells)
    tuned = []
    for first in (c for c in cells if c.method == "exploration"):
        # the checkpoint contains its configuration; the overrides of exploration are reverted
        task = [
            f"checkpoint={first.folder / 'checkpoints' / 'last.ckpt'}",
            f"total_steps={pretraining + steps}",
            f"policy.objective.weight_ext={cfg.policy.objective.weight_ext}",
            f"weights.rew={cfg.weights.rew}",
        ]
        tuned += runner.cells({"pretrained": task}, [], [first.seed])
    runner.train(tuned)
    runs = {"pretrained": tuned} | {m: [c for c in cells if c.method == m] for m in ("scratch", "longer")}
    figure, (axis,) = panels(1)
    rows = []
    for name, trained in runs.items():
        before = pretraining if name == "pretrained" else 0
        grid = np.linspace(0, pretraining + steps if name == "longer" else steps, POINTS)
        curves = np.array([_curve(c, before, grid) for c in trained])
        middle, low, high = band(curves, draws=2_000)
        (line,) = axis.plot(grid, middle, label=name)
        axis.fill_between(grid, low, high, color=line.get_color(), alpha=0.2, lw=0)
        seen, unseen = (np.array([_return(c, episodes, held_out) for c in trained]) for held_out in (False, True))
        rows.append([name, f"{grid[-1]:,.0f}", *map(format_mean_range, (curves.mean(-1), seen, unseen, seen - unseen))])
    axis.set(xlabel="environment steps on the task", ylabel="return (last 200 episodes)")
    axis.grid(alpha=0.3)
    axis.legend()
    header = ["agent", "steps on the task", "mean return over them", "seen levels", "unseen levels", "difference"]
    runner.write(
        Table("exploration without reward, then the task", header, rows),
        f"Mean [lowest, highest] over seeds {', '.join(map(str, seeds))}. {pretraining:,} steps of exploration, "
        f"{levels} levels, actions repeated with probability {sticky}. Levels: the sampled policy's return at the end, "
        f"over {episodes} episodes on each kind.",
        figure,
    )


def _curve(cell: Cell, before: int, grid: np.ndarray) -> np.ndarray:
    """Return over steps on the task; 0 before the first episode has ended."""
    found = read_metrics(cell.folder / "metrics.csv")
    return np.interp(grid, found["env_steps"] - before, np.nan_to_num(found["return_ext"]))


def _return(cell: Cell, episodes: int, held_out: bool) -> float:
    """Mean return of the sampled policy on training levels, or on held-out ones."""
    agent, cfg = load_agent(cell.folder / "checkpoints" / "last.ckpt")
    freeze(agent, COPIES)
    torch.manual_seed(cell.seed)
    with bad_input():
        env = build_env(cfg, seed=TEST_SEEDS + cell.seed, num_envs=COPIES, held_out=held_out)
    stats = EpisodeStats(episodes)
    try:
        for _ in run_episodes(
            agent, env, stats, context=cfg.data.context, rollout_length=cfg.data.rollout_length, greedy=False
        ):
            pass
    finally:
        env.close()
    return float(stats.ret.mean())
