"""Whole episodes of a frozen agent, counted without preferring short ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from worldmodel.envs import VectorEnv
from worldmodel.experience.collector import Collector, Episodes
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.model.world_model import Outputs
from worldmodel.running_stats import RunningMeanStd
from worldmodel.types import Rollout, ScoredRollout


def freeze(module: CuriousAgent, num_envs: int) -> None:
    """Evaluation mode, in place: running statistics stay as they are, for `num_envs` copies.

    A mean over infinitely many samples isn't moved by another one, so scoring goes the same way as in training.
    """
    module.eval().requires_grad_(False)
    for moments in module.modules():
        if isinstance(moments, RunningMeanStd):
            moments.horizon = float("inf")
            moments.count.fill_(moments.horizon)
    module.reward_normalizer.reset(num_envs)
    module.curiosity.reset(num_envs)


@dataclass
class EpisodeStats:
    """Sums over each of the first episodes: number round * N + copy, so that every copy plays as many (or one less)
    and they count however long they take. The first ones to finish would be the short ones."""

    episodes: int
    ret: np.ndarray = field(init=False)  # (episodes,) extrinsic return
    length: np.ndarray = field(init=False)
    rew_int_raw: np.ndarray = field(init=False)
    rew_int: np.ndarray = field(init=False)
    finished: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        for name in ("ret", "length", "rew_int_raw", "rew_int", "finished"):
            setattr(self, name, np.zeros(self.episodes))

    def number(self, roll: Rollout) -> tuple[Tensor, Tensor]:
        """The number of each transition's episode, and whether it counts: (N, T) each."""
        episode = roll.new_steps(roll.episode)
        copies = torch.arange(len(episode), device=episode.device)
        number = episode * len(episode) + copies[:, None]
        return number, roll.new_steps(roll.mask) & (number < self.episodes)

    def add(self, roll: ScoredRollout, rew_int_raw: Tensor) -> None:
        """Take in a scored rollout and its raw curiosity (N, T)."""
        number, counted = self.number(roll)
        which = number[counted].cpu().numpy()

        def sums(x: Tensor) -> np.ndarray:
            return np.bincount(which, x[counted].cpu().numpy(), self.episodes)

        self.ret += sums(roll.new_steps(roll.rew_ext))
        self.length += sums(counted)
        self.rew_int_raw += sums(rew_int_raw)
        self.rew_int += sums(roll.rew_int)
        self.finished += sums(roll.new_steps(roll.end | roll.trunc))

    @property
    def complete(self) -> bool:
        return bool((self.finished > 0).all())


@torch.no_grad()
def run_episodes(
    module: CuriousAgent,
    env: VectorEnv,
    stats: EpisodeStats,
    *,
    context: int,
    rollout_length: int,
    greedy: bool,
    policy: nn.Module | None = None,
    progress: Callable[[int], None] = lambda finished: None,
) -> Iterator[tuple[ScoredRollout, Outputs]]:
    """Let a frozen agent play until the stats is complete; yields each rollout of N x T steps with the model's view.

    Rollouts are those of training: `context` and `rollout_length` are what the agent was trained with. `policy` acts
    instead of the agent's own.
    """
    actor = module.make_actor(env.num_envs, context, rollout_length, policy)
    collector = Collector(env, actor, Episodes(env.num_envs), greedy)
    module.curiosity.reset(env.num_envs)  # the numbers of episodes begin anew
    while not stats.complete:
        roll = collector.collect()
        out = module.model.score_rollout(roll)
        raw = module.curiosity.reward(roll, out)
        roll = module.objective.score(roll, module.reward_normalizer(raw, roll.new_steps(roll.mask)))
        stats.add(roll, raw)
        progress(int(stats.finished.sum()))
        yield roll, out
