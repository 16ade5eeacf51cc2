"""Rollouts of untrained agents, and the contents of a replay."""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import torch

from helpers.tiny import EASY, clone, tiny_agent
from worldmodel.analysis.probes.activations import record
from worldmodel.experience.replay import Replay
from worldmodel.experience.replay.records import sequences_of
from worldmodel.experience.stream import ExperienceStream
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.learner.run_episodes import freeze
from worldmodel.types import Rollout, ScoredRollout, Sequences

CHAIN = ["experiment=chain", "env.num_envs=4", "env.kwargs.length=6", "data.rollout_length=20", "data.minibatches=2"]
DREAM = [
    *("policy=imagined", "heads=observation", "curiosity=max", "curiosity.members=3", "curiosity.hidden=16"),
    *(
        "policy.imagination.num_start_states=16",
        "policy.imagination.horizon=5",
        "data.replay_batch=2",
        "data.replay_capacity=16",
    ),
]


MESS3 = ["env=mess3", "encoder=discrete", "curiosity=none", "env.kwargs.max_episode_steps=20"]


def everything(replay: Replay) -> Sequences:
    """All stored sequences, the oldest first."""
    numbers = replay.store.length - len(replay) + np.arange(len(replay))
    return sequences_of(replay.store[numbers], replay.num_new, torch.device("cpu"))


def collected(*overrides: str, seed: int = 0) -> tuple[CuriousAgent, list[Rollout]]:
    """An untrained agent and two consecutive rollouts in which it acted; each call returns copies."""
    agent, rollouts = _collected(seed, *overrides)
    return copy.deepcopy(agent), [clone(roll) for roll in rollouts]


@cache
def _collected(seed: int, *overrides: str) -> tuple[CuriousAgent, list[Rollout]]:
    torch.manual_seed(seed)
    agent, stream, _ = tiny_agent(*overrides)
    rollouts = [stream.collector.collect() for _ in range(2)]
    stream.close()
    return agent, rollouts


def lived(*overrides: str, easy: list[str] = EASY) -> tuple[CuriousAgent, ScoredRollout]:
    """An untrained agent that has scored two rollouts of 4 x 8 steps, and the second of them."""
    torch.manual_seed(1)
    agent, stream, _ = tiny_agent(*easy, *overrides)
    for _ in range(2):
        roll = agent.score(stream.collector.collect())
    stream.close()
    return agent, roll


def recorded(*overrides: str, episodes: int = 8) -> tuple[CuriousAgent, ExperienceStream, list[Rollout]]:
    """An untrained, frozen agent, its closed stream and rollouts of at least `episodes` episodes."""
    torch.manual_seed(0)
    agent, stream, _ = tiny_agent(*overrides)
    env, window = stream.env, {"context": stream.context, "rollout_length": stream.rollout_length}
    freeze(agent, env.num_envs)
    rolls = record(agent, env, episodes=episodes, **window)
    stream.close()
    return agent, stream, rolls
