"""Whole episodes of a frozen agent, counted without a bias towards short ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from worldmodel.envs import VectorEnv
from worldmodel.errors import ConfigError
from worldmodel.experience.collector import Collector, Episodes
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.model.world_model import Outputs
from worldmodel.running_stats import RunningMeanStd
from worldmodel.types import Rollout, ScoredRollout

SOLVED = ("is_success", "success", "solved")
"""Entries of `info` that mark success; of an episode's first observation, that it begins solved."""

LONGEST_EPISODE = 10_000
"""Steps after which an episode is truncated by default."""


def freeze(agent: CuriousAgent, num_envs: int) -> None:
    """Set evaluation mode in place, for `num_envs` environments; running statistics no longer change.

    A running mean with an infinite count does not move, so that scoring can run the code of training.
    """
    agent.eval().requires_grad_(False)
    for moments in agent.modules():
        if isinstance(moments, RunningMeanStd):
            moments.horizon = float("inf")
            moments.count.fill_(moments.horizon)
    agent.reward_normalizer.reset(num_envs)
    agent.return_scale.reset(num_envs)
    agent.curiosity.reset(num_envs)


@dataclass
class EpisodeStats:
    """Sums over each of the first `episodes` episodes, numbered round * N + copy.

    Every copy contributes equally many episodes (or one less), whatever their length. The first `episodes` episodes to
    finish would be biased towards short ones.
    """

    episodes: int
    ret: np.ndarray = field(init=False)  # (episodes,) extrinsic return
    length: np.ndarray = field(init=False)
    rew_int_raw: np.ndarray = field(init=False)
    rew_int: np.ndarray = field(init=False)
    finished: np.ndarray = field(init=False)
    truncated: np.ndarray = field(init=False)
    solved: np.ndarray = field(init=False)  # at the first observation already, by `SOLVED`
    limit: int | None = field(init=False, default=None)  # steps after which episodes were truncated

    def __post_init__(self) -> None:
        for name in ("ret", "length", "rew_int_raw", "rew_int", "finished", "truncated", "solved"):
            setattr(self, name, np.zeros(self.episodes))

    def number(self, roll: Rollout) -> tuple[Tensor, Tensor]:
        """Return the number of each transition's episode, and whether it counts: (N, T) each."""
        episode = roll.new_steps(roll.episode)
        copies = torch.arange(len(episode), device=episode.device)
        number = episode * len(episode) + copies[:, None]
        return number, roll.new_steps(roll.mask) & (number < self.episodes)

    def add(self, roll: ScoredRollout, rew_int_raw: Tensor) -> None:
        """Add a scored rollout and its raw intrinsic reward (N, T)."""
        number, counted = self.number(roll)
        which = number[counted].cpu().numpy()

        def sums(x: Tensor) -> np.ndarray:
            return np.bincount(which, x[counted].cpu().numpy(), self.episodes)

        marks = [x[:, :-1].bool() for key in SOLVED if (x := roll.info.get(key)) is not None and x.ndim == 2]
        if marks:
            known = torch.from_numpy(self.length > 0).to(number.device)[number.clamp(max=self.episodes - 1)]
            before = torch.cat([torch.full_like(number[:, :1], -1), number[:, :-1]], 1)
            self.solved += sums(torch.stack(marks).any(0) & ~known & (number != before))
        self.ret += sums(roll.new_steps(roll.rew_ext))
        self.length += sums(counted)
        self.rew_int_raw += sums(rew_int_raw)
        self.rew_int += sums(roll.rew_int)
        self.finished += sums(roll.new_steps(roll.end | roll.trunc))
        self.truncated += sums(roll.new_steps(roll.trunc))

    @property
    def complete(self) -> bool:
        """Return whether all episodes have finished."""
        return bool((self.finished > 0).all())

    @property
    def cut(self) -> int:
        """Return the number of episodes that the limit has truncated."""
        return 0 if self.limit is None else int(((self.truncated > 0) & (self.length >= self.limit)).sum())


@torch.no_grad()
def run_episodes(
    agent: CuriousAgent,
    env: VectorEnv,
    stats: EpisodeStats,
    *,
    context: int,
    rollout_length: int,
    greedy: bool,
    policy: nn.Module | None = None,
    progress: Callable[[int], None] = lambda finished: None,
    max_episode_steps: int | None = None,
) -> Iterator[tuple[ScoredRollout, Outputs]]:
    """Run a frozen agent until `stats` is complete; yield each scored rollout of N x T steps with the model's outputs.

    Args:
        agent: frozen by `freeze` for the number of environments.
        env: the environments; the caller closes them.
        stats: sums over the episodes, filled by this function.
        context: steps of context, K, as in training.
        rollout_length: new steps of a rollout, T, as in training.
        greedy: take the most probable action.
        policy: acts instead of the agent's own.
        progress: called with the number of finished episodes after each rollout.
        max_episode_steps: steps after which an episode is truncated. None: 10,000, or the environment's own time limit
            if that is larger.

    Raises:
        ConfigError: if episodes do not end and the engine cannot truncate them.
    """
    stats.limit = max(LONGEST_EPISODE, env.time_limit or 0) if max_episode_steps is None else max_episode_steps
    env.limit_episodes(stats.limit)
    left = math.ceil(stats.episodes / env.num_envs) * (stats.limit + 1)  # steps and resets of a copy
    actor = agent.make_actor(env.num_envs, context, rollout_length, policy)
    collector = Collector(env, actor, Episodes(env.num_envs), greedy)
    agent.curiosity.reset(env.num_envs)  # the numbers of episodes restart
    while not stats.complete:
        if left <= 0:
            raise ConfigError(
                f"max_episode_steps={stats.limit}: the engine of this environment cannot truncate episodes"
            )
        left -= rollout_length
        roll = collector.collect()
        out = agent.model.score_rollout(roll)
        raw = agent.curiosity.reward(roll, out)
        rew_ext = agent.return_scale(roll.new_steps(roll.rew_ext))
        roll = agent.objective.score(roll, rew_ext, agent.reward_normalizer(raw, roll.new_steps(roll.mask)))
        stats.add(roll, raw)
        progress(int(stats.finished.sum()))
        yield roll, out
