"""Context of an evaluation: an agent and its episodes, each behaviour run once for all sections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from omegaconf import DictConfig

from worldmodel.analysis.report.atari import whole_games
from worldmodel.analysis.report.calibration import Calibration
from worldmodel.analysis.report.recorded import RecordedRollouts
from worldmodel.analysis.report.transitions import Transitions
from worldmodel.envs.spec import EnvSpec
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.learner.run_episodes import EpisodeStats, freeze, run_episodes
from worldmodel.policy import RandomPolicy
from worldmodel.training.build import build_env
from worldmodel.training.config import bad_input

SEED_OFFSET = 1_000_000  # keeps evaluation's environments apart from those of any training seed
RECORDED = 8  # rollouts that predictions start from, at least; at most twice as many


@dataclass
class EpisodeSet:
    """Episodes of one behaviour."""

    name: str
    stats: EpisodeStats
    steps: Transitions
    calibration: Calibration
    recorded: list[RecordedRollouts]


@dataclass
class EvaluationContext:
    """A checkpoint and the settings of its evaluation. The constructor freezes `agent`, which is on its device."""

    checkpoint: Path
    agent: CuriousAgent
    cfg: DictConfig
    episodes: int
    seed: int
    num_envs: int
    progress: Callable[[str], None] = lambda message: None
    max_episode_steps: int | None = None  # see `run_episodes`
    spec: EnvSpec = field(init=False)
    _episode_sets: dict[Any, EpisodeSet] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        freeze(self.agent, self.num_envs)
        assert self.agent.env_spec is not None
        self.spec = self.agent.env_spec

    @property
    def longest_episode(self) -> int:
        """Number of steps after which episodes were truncated."""
        return max(episode_set.stats.limit for episode_set in self._episode_sets.values())

    @property
    def act_space(self) -> gym.Space:
        """Action space of the environment."""
        return self.spec.act_space

    @property
    def null_action(self) -> int | None:
        """Action that does nothing; None where there is none."""
        return self.spec.null_action

    @property
    def random_policy(self) -> RandomPolicy:
        """A uniformly random policy for this environment."""
        model = self.agent.model
        return RandomPolicy(model.memory.dim, model.encoder.shape, self.act_space, hidden=1).to(self.agent.device)

    def episode_set(self, policy: str, **changes: Any) -> EpisodeSet:
        """Return the episodes of a policy (`greedy`, `sampled` or `random`). The same call returns the same object.

        `changes` replace arguments of the environment.
        """
        key = (policy, tuple(sorted(changes.items())))
        if key not in self._episode_sets:
            self._episode_sets[key] = self._run_episodes(policy, changes)
        return self._episode_sets[key]

    def _run_episodes(self, policy: str, changes: dict[str, Any]) -> EpisodeSet:
        torch.manual_seed(self.seed)
        limit = {} if self.max_episode_steps is None else {"max_episode_steps": self.max_episode_steps}
        limit |= whole_games(self.cfg.env)
        with bad_input():
            env = build_env(self.cfg, seed=SEED_OFFSET + self.seed, num_envs=self.num_envs, **limit, **changes)
        name = " ".join([policy, *(f"{k}={v}" for k, v in changes.items())])
        stats, calibration = EpisodeStats(self.episodes), Calibration()
        steps: list[Transitions] = []
        recorded: list[RecordedRollouts] = []
        every = 1  # doubled whenever too many rollouts are recorded
        try:
            playing = run_episodes(
                self.agent,
                env,
                stats,
                context=self.cfg.data.context,
                rollout_length=self.cfg.data.rollout_length,
                greedy=policy == "greedy",
                policy=self.random_policy if policy == "random" else None,
                progress=lambda done: self.progress(
                    f"{name}: {min(done, self.episodes)}/{self.episodes} episodes, {stats.length.sum():,.0f} steps"
                ),
                max_episode_steps=self.max_episode_steps,
            )
            for i, (roll, out) in enumerate(playing):
                number, counted = stats.number(roll)
                steps.append(Transitions.of(roll, out, number, counted))
                calibration.add(out.error[counted], out.pred.logvar[counted])
                if i % every == 0:
                    recorded.append(RecordedRollouts.of(self.agent.model, roll, out, number, counted))
                if len(recorded) > 2 * RECORDED:
                    recorded, every = recorded[::2], 2 * every
        finally:
            env.close()
        return EpisodeSet(name, stats, Transitions.join(steps), calibration, recorded)
