"""World models trained on one behaviour and tested on another's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from omegaconf import DictConfig

from worldmodel.experiments.benchmark.suite import Cell
from worldmodel.experiments.study_runner import StudyRunner
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.learner.run_episodes import EpisodeStats, freeze, run_episodes
from worldmodel.training.build import build_env
from worldmodel.training.config import bad_input
from worldmodel.training.loading import load_agent

TEST_SEEDS = 3_000_000  # seeds of environments that no training uses
COPIES = 8


def train_on(
    runner: StudyRunner, behaviours: Mapping[str, Sequence[str]], common: Sequence[str], seeds: Sequence[int]
) -> dict[str, list[Cell]]:
    """Train a cell for each behaviour and seed; return the cells by behaviour, in the order of the seeds."""
    cells = runner.cells(behaviours, common, seeds)
    runner.train(cells)
    return {name: [c for c in cells if c.method == name] for name in behaviours}


def skills(trained: Mapping[str, Sequence[Cell]], episodes: int) -> np.ndarray:
    """Skill (A, B, seeds) of a model trained on A's behaviour and tested on B's.

    Within a seed, all models are tested on the same episodes of B.
    """
    by_seed = zip(*trained.values(), strict=True)  # one cell of each behaviour
    found = []
    for cells in by_seed:
        agents = [load_agent(c.folder / "checkpoints" / "last.ckpt") for c in cells]
        found.append(cross_skill(agents, episodes, cells[0].seed))
    return np.stack(found, -1)


@torch.no_grad()
def cross_skill(agents: Sequence[tuple[CuriousAgent, DictConfig]], episodes: int, seed: int) -> np.ndarray:
    """Skill (A, B) of the model of agent A on the episodes of agent B.

    Skill is 1 - error / error of predicting no change, one step ahead, of the predicted mean: both errors are squared,
    in units of the standard deviation of A's latent deltas, and summed over all steps of the episodes that count.
    """
    for agent, _ in agents:
        freeze(agent, COPIES)
    error, base = np.zeros((2, len(agents), len(agents)))
    for b, (actor, cfg) in enumerate(agents):
        torch.manual_seed(seed)
        with bad_input():
            env = build_env(cfg, seed=TEST_SEEDS + seed, num_envs=COPIES)
        stats = EpisodeStats(episodes)
        try:
            for roll, _ in run_episodes(
                actor, env, stats, context=cfg.data.context, rollout_length=cfg.data.rollout_length, greedy=False
            ):
                _, counted = stats.number(roll)
                for a, (agent, _) in enumerate(agents):
                    out = agent.model(roll)
                    error[a, b] += float((out.skill_error * counted).sum())
                    base[a, b] += float((out.skill_base * counted).sum())
        finally:
            env.close()
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(base > 0, 1 - error / base, np.nan)  # without any change, the skill is undefined
