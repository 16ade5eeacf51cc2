"""Duration of an optimiser step, memory and disk by the number of steps in the replay."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldmodel.analysis.report.canvas import panels
from worldmodel.analysis.report.section import Table
from worldmodel.errors import ConfigError
from worldmodel.experience.replay import CuriousReplayPriority, Replay
from worldmodel.experiments.study_runner import StudyRunner
from worldmodel.training.build import build_agent, build_data, build_module, env_spec
from worldmodel.training.compose import compose_config
from worldmodel.training.module import TrainingModule
from worldmodel.types import Minibatch, ScoredRollout, concatenate

KINDS = {"memory, uniform": (False, False), "disk, uniform": (True, False), "disk, curious": (True, True)}


def replay_age(
    runner: StudyRunner, *, common: list[str], steps: list[int], repeats: int, rehearsed: int, seed: int
) -> None:
    """Fill replays with copies of one rollout up to each number of `steps`, and time optimiser steps.

    A step samples `rehearsed` sequences beside a fresh one, learns from them, and updates the replay's priorities. All
    sizes are in memory at the same time and take turns, one step each, `repeats` times, so that other load of the
    machine affects them equally.

    Raises:
        ConfigError: for fewer than two sizes or repeats.
    """
    if steps != sorted(set(steps)) or len(steps) < 2 or repeats < 2:
        raise ConfigError("study.steps and study.repeats: allowed are at least two, rising, and at least 2")
    torch.manual_seed(seed)
    overrides = (*common, f"seed={seed}", f"data.replay_batch={rehearsed}", "data.model_every=1")
    cfg = compose_config(overrides, purpose="replay_age")
    module, roll = _module(cfg)
    runner.out.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="replay", dir=runner.out))
    try:
        rows = []
        for kind, (on_disk, curious) in KINDS.items():
            rows += _measure(module, roll, kind, steps, repeats, rehearsed, folder if on_disk else None, curious)
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    header = [
        "replay", "stored steps", "step, ms", "of it the replay, ms", "against the smallest", "added, us a step",
        "memory, MB", "disk, MB",
    ]  # fmt: skip
    figure, axes = panels(3)
    for kind in KINDS:
        mine = [row for row in rows if row[0] == kind]
        for axis, column in zip(axes, (2, 6, 7), strict=True):
            axis.plot([row[1] for row in mine], [row[column] for row in mine], "o-", label=kind)
    for axis, name in zip(axes, ("a step of the learner, ms", "memory, MB", "disk, MB"), strict=True):
        axis.set(xlabel="stored steps", ylabel=name, xscale="log", ylim=(0, None))
        axis.grid(alpha=0.3)
    axes[0].legend()
    runner.write(
        Table("a step of the learner as the replay grows", header, [[*map(_format, row)] for row in rows]),
        f"Medians over {repeats} steps of the optimiser on {rehearsed} old sequences and one fresh one, sizes taking "
        "turns; 'against the smallest' is the median of the ratios of the steps of one turn. Memory: growth of the "
        "resident set while filling (disk: the page cache is not in it). The stored sequences are copies of one "
        f"rollout of {cfg.env.id}.",
        figure,
    )


def _module(cfg: Any) -> tuple[TrainingModule, ScoredRollout]:
    """An agent in its training module, and one scored rollout."""
    agent, stream = build_agent(cfg, env_spec(cfg)), build_data(cfg).stream
    stream.open(agent.make_actor)
    roll = agent.score(stream.collector.collect())
    stream.close()
    return build_module(cfg, agent), roll


def _measure(
    module: TrainingModule,
    roll: ScoredRollout,
    kind: str,
    steps: Sequence[int],
    repeats: int,
    rehearsed: int,
    folder: Path | None,
    curious: bool,
) -> list[list[Any]]:
    optimizer = module.configure_optimizers()["optimizer"]
    replays, grown, added = [], [], []
    for count in steps:
        before, start = _resident(), time.perf_counter()
        capacity = -(-count // roll.num_new)
        priority = CuriousReplayPriority() if curious else None
        replays.append(_filled(capacity, roll, priority, folder and folder / f"{kind} {count}"))
        grown.append((_resident() - before) / 1e6)
        added.append((time.perf_counter() - start) / count * 1e6)
    whole, own = np.zeros((2, repeats + 2, len(steps)))
    for turn in range(len(whole)):
        for i, replay in enumerate(replays):
            start = time.perf_counter()
            old, numbers = replay.sample(rehearsed, module.device)
            drawn = time.perf_counter()
            model = concatenate([roll[:1], old])
            optimizer.zero_grad()
            outputs = module.training_step(Minibatch(model, roll[:1], numbers), 0)
            outputs["loss"].backward()
            optimizer.step()
            replay.update_priorities(numbers, outputs["replayed"])
            learnt = time.perf_counter()
            whole[turn, i], own[turn, i] = learnt - start, drawn - start
    whole, own = whole[2:] * 1e3, own[2:] * 1e3  # the first two turns are a warm-up
    ratios = np.median(whole / whole[:, :1], 0)
    rows = []
    for i, replay in enumerate(replays):
        size = sum(p.stat().st_size for p in replay.store.folder.iterdir()) / 1e6 if folder else 0.0
        middle = np.median(whole[:, i]), np.median(own[:, i])
        rows.append([kind, len(replay) * roll.num_new, *middle, ratios[i], added[i], grown[i], size])
        replay.close()
    return rows


def _filled(capacity: int, roll: ScoredRollout, priority: CuriousReplayPriority | None, folder: Path | None) -> Replay:
    """Return a replay filled with copies of the rollout."""
    replay = Replay(capacity, priority, folder)
    while len(replay) < capacity:
        replay.add(roll[: capacity - len(replay)])
    return replay


def _resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _format(value: str | float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
