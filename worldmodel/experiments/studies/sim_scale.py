"""What scale of simulation gives accuracy at low dimension? A double pendulum, simulated and seen in several ways."""

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

SEEN = 32  # rows that the memory has read where a prediction begins, and between two of them
BOB = 2  # numbers that are judged, whatever else is observed: the lower bob's place


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
    """Train a world model on each kind of simulation, and hold all of them against one that is as good as exact.

    A kind is an integration step (s), how many numbers are observed, and what they are rounded to. Judged is where the
    lower bob will be, on `copies` unseen episodes of a simulation with the step `reference`: how many Lyapunov times
    ahead the share of its variance that is explained stays above `level`, `ahead` observations at most. Beside the
    learnt model stands the simulation itself with that step, started from the whole state as it is seen, rounded.
    """
    kinds = {
        f"step{step:g}_dim{dim}_resolution{res:g}": (step, dim, res)
        for step, dim, res in product(steps, dims, resolutions)
    }
    overrides = {
        name: [f"env.step={step}", f"env.dim={dim}", f"env.resolution={res}"]
        for name, (step, dim, res) in kinds.items()
    }
    cells = runner.cells(overrides, common, seeds)
    runner.train(cells)
    lyapunov, interval = clock(cells[0])
    time = interval * np.arange(ahead + 1) / lyapunov
    figure, (learnt, simulated) = panels(2)
    rows, drawn = [], set()
    for i, (name, (step, dim, res)) in enumerate(kinds.items()):
        found = [judge(cell, reference, copies, ahead) for cell in cells if cell.method == name]
        reach = [horizon(time, x["model"], level) for x in found]
        own = horizon(time, found[0]["simulation"], level)
        seen = np.mean([x["decoded"] for x in found])
        rows.append([f"{step:g}", str(dim), f"{res:g}", _span(reach, time[-1]), _short(own, time[-1]), f"{seen:.3f}"])
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
        f"Where the lower bob of a double pendulum will be, held against a simulation with a step of {reference:g} s. "
        f"One Lyapunov time is {lyapunov:.2f} s, {lyapunov / interval:.1f} observations; predictions were made "
        f"{time[-1]:.1f} ahead, from {SEEN} observations and more. Learnt model: open loop, {several} "
        f"{', '.join(map(str, seeds))}, trained for {cells[0].budget:,} steps on simulations with the step of its row. "
        "Simulation: started with the rounded whole state (six numbers), so it does not depend on how many are seen. "
        "The last column is a linear read-out of the model's latent, with nothing to predict: what bounds it from "
        "above.",
        figure,
    )


@torch.no_grad()
def judge(cell: Cell, reference: float, copies: int, ahead: int) -> dict[str, Any]:
    """A trained cell on the reference simulation: shares of the bob's variance that are explained 0..ahead observations
    ahead by the learnt `model` and by the `simulation` with the cell's step, (ahead + 1,) each; and how much of it is
    in the latent (`decoded`)."""
    module, cfg = load_agent(cell.folder / "checkpoints" / "last.ckpt")
    freeze(module, copies)
    torch.manual_seed(cell.seed)
    env = build_env(cfg, seed=TEST_SEEDS + cell.seed, num_envs=copies, step=reference)
    try:
        stats = EpisodeStats(copies)
        game = run_episodes(
            module, env, stats, context=cfg.data.context, rollout_length=cfg.data.rollout_length, greedy=False
        )
        roll, out = next(game)
    finally:
        env.close()
    window, state = Window.of(module.model, roll, out.y), roll.info["state"]  # (N, T+1, 4)
    bob = torch.from_numpy(outputs_of(state.numpy())[..., :BOB])  # (N, T+1, 2)
    even = torch.arange(copies) % 2 == 0
    read = ridge(out.y[even].flatten(0, 1).flatten(1), bob[even].flatten(0, 1))
    rest = ~even
    truth, whole = bob[rest], state[rest].numpy()
    model, simulation = [], []
    for start in range(SEEN, window.num_new - ahead, SEEN):
        real = roll.new_steps(roll.mask)[rest, start : start + ahead].all(1)
        then = truth[:, start : start + ahead + 1]
        path = torch.cat([out.y[:, start, None], imagine(module.model, window, start, ahead)], 1)[rest]
        model.append((read(path.flatten(0, 1).flatten(1)).view_as(then) - then)[real])
        run = simulate(whole[:, start], cfg.env.step, cfg.env.interval, cfg.env.resolution, ahead)
        simulation.append((torch.from_numpy(run) - then)[real])
    variance = truth.flatten(0, 1).var(0).sum()

    def explained(errors: list[Tensor]) -> np.ndarray:
        return (1 - torch.cat(errors).square().sum(-1).mean(0) / variance).numpy()

    return {
        "model": explained(model),
        "simulation": explained(simulation),
        "decoded": r_squared(truth.flatten(0, 1), read(out.y[rest].flatten(0, 1).flatten(1))),
    }


def clock(cell: Cell) -> tuple[float, float]:
    """Seconds of a Lyapunov time, and between two observations."""
    env = compose_config(cell.overrides, purpose=cell.method).env
    return Pendulums(1, energy=env.energy).lyapunov_time()[0], float(env.interval)


def simulate(state: np.ndarray, step: float, interval: float, resolution: float, ahead: int) -> np.ndarray:
    """The bob's places (N, ahead + 1, 2) from states (N, 4) that are known as their rounded outputs tell."""
    seen = outputs_of(state)
    now = state_of(np.round(seen / resolution) * resolution) if resolution else state
    path = [now]
    for _ in range(ahead):
        path.append(rk4(flow, path[-1], step, round(interval / step)))
    return outputs_of(np.stack(path, 1))[..., :BOB]


def horizon(time: np.ndarray, explained: np.ndarray, level: float) -> float:
    """When a curve first falls below a level, between its points by straight lines; the last time if it never does."""
    below = np.flatnonzero(explained < level)
    if not len(below):
        return float(time[-1])
    k = below[0]
    if k == 0:
        return 0.0
    share = (explained[k - 1] - level) / (explained[k - 1] - explained[k])
    return float(time[k - 1] + share * (time[k] - time[k - 1]))


def _short(value: float, most: float) -> str:
    return f"{'≥ ' if value >= most else ''}{value:.2f}"


def _span(values: Sequence[float], most: float) -> str:
    words = _short(float(np.mean(values)), most)
    return words if len(values) == 1 else f"{words} [{min(values):.2f}, {max(values):.2f}]"
