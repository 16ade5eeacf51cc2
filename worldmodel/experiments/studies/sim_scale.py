"""Accuracy of low-dimensional models over scales of simulation, on a double pendulum."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldmodel.analysis.probes.linear import r_squared, ridge
from worldmodel.analysis.report.canvas import panels
from worldmodel.analysis.report.open_loop import Window, imagine
from worldmodel.analysis.report.section import Table
from worldmodel.envs.worlds.chaos import rk4
from worldmodel.envs.worlds.pendulum import Pendulums, flow, outputs_of, state_of
from worldmodel.experiments.behaviour import TEST_SEEDS
from worldmodel.experiments.benchmark.suite import Cell
from worldmodel.experiments.study_runner import StudyRunner
from worldmodel.learner.run_episodes import EpisodeStats, freeze, run_episodes
from worldmodel.training.build import build_env
from worldmodel.training.compose import compose_config
from worldmodel.training.loading import load_agent

SEEN = 32  # rows in the memory before the first prediction, and between two predictions
BOB = 2  # coordinates of the lower bob, which all kinds predict


def sim_scale(
    runner: StudyRunner,
    *,
    steps: Sequence[float],
    dims: Sequence[int],
    resolutions: Sequence[float],
    reference: float,
    common: list[str],
    seeds: list[int],
    copies: int,
    ahead: int,
    level: float = 0.5,
) -> None:
    """Train a world model on each kind of simulation, and compare their predictions with a nearly exact simulation.

    A kind is an integration step, a number of observed entries, and their resolution. The measure is the number of
    Lyapunov times for which a prediction of the lower bob's place explains at least `level` of its variance. For
    comparison, the simulation with the step of the kind starts from the rounded whole state.

    Args:
        runner: trains the runs and writes the results.
        steps: of the integration, in s.
        dims: numbers of observed entries.
        resolutions: multiples to which the entries are rounded; 0 does not round.
        reference: step of the nearly exact simulation, in s.
        common: overrides of all runs.
        seeds: of each kind.
        copies: number of test episodes.
        ahead: longest prediction, in observations.
        level: share of the variance.
    """
    kinds = {
        f"step{step:g}_dim{dim}_resolution{res:g}": (step, dim, res)
        for step, dim, res in product(steps, dims, resolutions)
    }
    overrides = {
        name: [f"env.kwargs.step={step}", f"env.kwargs.dim={dim}", f"env.kwargs.resolution={res}"]
        for name, (step, dim, res) in kinds.items()
    }
    cells = runner.cells(overrides, common, seeds)
    runner.train(cells)
    lyapunov, interval = time_scales(cells[0])
    time = interval * np.arange(ahead + 1) / lyapunov
    figure, (learnt, simulated) = panels(2)
    rows, drawn = [], set()
    for i, (name, (step, dim, res)) in enumerate(kinds.items()):
        found = [evaluate_cell(cell, reference, copies, ahead) for cell in cells if cell.method == name]
        reach = [horizon(time, x["model"], level) for x in found]
        own = horizon(time, found[0]["simulation"], level)
        seen = np.mean([x["decoded"] for x in found])
        rows.append([f"{step:g}", str(dim), f"{res:g}", _span(reach, time[-1]), _format(own, time[-1]), f"{seen:.3f}"])
        style = {"color": f"C{i % 10}", "ls": "-" if i < 10 else "--"}
        learnt.plot(time, np.mean([x["model"] for x in found], 0), label=f"{step:g} s, {dim}, {res:g}", **style)
        if (step, res) not in drawn:
            simulated.plot(time, found[0]["simulation"], label=f"{step:g} s, 6, {res:g}", **style)
        drawn.add((step, res))
    for axis, title in ((learnt, "learnt model"), (simulated, "the simulation, from the rounded whole state")):
        axis.axhline(level, color="grey", lw=0.8)
        axis.set(title=title, xlabel="Lyapunov times ahead", ylabel="share of variance explained", ylim=(-0.5, 1.02))
        axis.grid(alpha=0.3)
        axis.legend(title="step, numbers seen, rounded to", fontsize=7)
    header = [
        "step, s",
        "numbers seen",
        "rounded to",
        "learnt model",
        "simulation, whole state",
        "bob in latent, R²",
    ]
    several = "mean [lowest, highest] over seeds" if len(seeds) > 1 else "seed"
    runner.write(
        Table(f"Lyapunov times ahead for which ≥ {level:g} of the variance is explained", header, rows),
        f"Place of the lower bob of a double pendulum, compared with a simulation with a step of {reference:g} s. "
        f"One Lyapunov time is {lyapunov:.2f} s, {lyapunov / interval:.1f} observations; predictions reach "
        f"{time[-1]:.1f} ahead, from at least {SEEN} observations. Learnt model: open loop, {several} "
        f"{', '.join(map(str, seeds))}, trained for {cells[0].budget:,} steps on simulations with the step of its row. "
        "Simulation: started with the rounded whole state (6 entries), so it does not depend on the number observed. "
        "The last column is a linear read-out of the present latent, an upper bound of the predictions.",
        figure,
    )


@torch.no_grad()
def evaluate_cell(cell: Cell, reference: float, copies: int, ahead: int) -> dict[str, Any]:
    """Test a trained cell on the reference simulation.

    Returns:
        Explained shares of the bob's variance (ahead + 1,), 0 to `ahead` observations ahead, by the learnt `model` and
        by the `simulation` with the cell's step, and by a linear map from the present latent (`decoded`).
    """
    agent, cfg = load_agent(cell.folder / "checkpoints" / "last.ckpt")
    freeze(agent, copies)
    torch.manual_seed(cell.seed)
    given = cfg.env.kwargs
    kwargs = {**given, "step": reference}
    env = build_env(cfg, seed=TEST_SEEDS + cell.seed, num_envs=copies, kwargs=kwargs)
    try:
        stats = EpisodeStats(copies)
        game = run_episodes(
            agent, env, stats, context=cfg.data.context, rollout_length=cfg.data.rollout_length, greedy=False
        )
        roll, out = next(game)
    finally:
        env.close()
    window, state = Window.of(agent.model, roll, out.y), roll.info["state"]  # (N, T+1, 4)
    bob = torch.from_numpy(outputs_of(state.numpy())[..., :BOB])  # (N, T+1, 2)
    even = torch.arange(copies) % 2 == 0
    read = ridge(out.y[even].flatten(0, 1).flatten(1), bob[even].flatten(0, 1))
    rest = ~even
    truth, whole = bob[rest], state[rest].numpy()
    model, simulation = [], []
    for start in range(SEEN, window.num_new - ahead, SEEN):
        real = roll.new_steps(roll.mask)[rest, start : start + ahead].all(1)
        then = truth[:, start : start + ahead + 1]
        path = torch.cat([out.y[:, start, None], imagine(agent.model, window, start, ahead)], 1)[rest]
        model.append((read(path.flatten(0, 1).flatten(1)).view_as(then) - then)[real])
        run = simulate(whole[:, start], given.step, given.interval, given.resolution, ahead)
        simulation.append((torch.from_numpy(run) - then)[real])
    variance = truth.flatten(0, 1).var(0).sum()

    def explained(errors: list[Tensor]) -> np.ndarray:
        return (1 - torch.cat(errors).square().sum(-1).mean(0) / variance).numpy()

    return {
        "model": explained(model),
        "simulation": explained(simulation),
        "decoded": r_squared(truth.flatten(0, 1), read(out.y[rest].flatten(0, 1).flatten(1))),
    }


def time_scales(cell: Cell) -> tuple[float, float]:
    """Return the Lyapunov time and the interval between observations, in seconds."""
    given = compose_config(cell.overrides, purpose=cell.method).env.kwargs
    return Pendulums(1, energy=given.energy).lyapunov_time()[0], float(given.interval)


def simulate(state: np.ndarray, step: float, interval: float, resolution: float, ahead: int) -> np.ndarray:
    """Simulate the bob's places (N, ahead + 1, 2) from states (N, 4), given their rounded outputs."""
    seen = outputs_of(state)
    now = state_of(np.round(seen / resolution) * resolution) if resolution else state
    path = [now]
    for _ in range(ahead):
        path.append(rk4(flow, path[-1], step, round(interval / step)))
    return outputs_of(np.stack(path, 1))[..., :BOB]


def horizon(time: np.ndarray, explained: np.ndarray, level: float) -> float:
    """Return the time at which a curve first falls below a level, interpolated linearly; at most the last time."""
    below = np.flatnonzero(explained < level)
    if not len(below):
        return float(time[-1])
    k = below[0]
    if k == 0:
        return 0.0
    share = (explained[k - 1] - level) / (explained[k - 1] - explained[k])
    return float(time[k - 1] + share * (time[k] - time[k - 1]))


def _format(value: float, most: float) -> str:
    return f"{'≥ ' if value >= most else ''}{value:.2f}"


def _span(values: Sequence[float], most: float) -> str:
    words = _format(float(np.mean(values)), most)
    return words if len(values) == 1 else f"{words} [{min(values):.2f}, {max(values):.2f}]"
