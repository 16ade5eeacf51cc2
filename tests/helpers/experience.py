"""Rollouts of untrained agents, and what a replay holds."""

from __future__ import annotations

import numpy as np
import torch

from helpers.tiny import EASY, tiny_agent
from worldmodel.analysis.probes.activations import record
from worldmodel.experience.replay import Replay
from worldmodel.experience.replay.records import rollout_of
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.learner.run_episodes import freeze
from worldmodel.types import Rollout

CHAIN = ["experiment=chain", "env.num_envs=4", "env.length=6", "data.rollout_length=20", "data.batch=2"]
DREAM = [
    *("policy=imagined", "heads=observation", "curiosity=max", "curiosity.members=3", "curiosity.hidden=16"),
    *(
        "policy.imagination.num_start_states=16",
        "policy.imagination.horizon=5",
        "data.replay_batch=2",
        "data.replay_capacity=16",
    ),
]


MESS3 = ["env=mess3", "encoder=discrete", "curiosity=none", "env.max_episode_steps=20"]


def everything(replay: Replay) -> Rollout:
    """All that can be drawn, the oldest first."""
    numbers = replay.store.length - len(replay) + np.arange(len(replay))
    return rollout_of(replay.store[numbers], torch.device("cpu"))


def lived(*overrides: str, easy: list[str] = EASY) -> tuple[CuriousAgent, Rollout]:
    """An untrained agent that has scored two rollouts of 4 x 8 steps, and the second one."""
    torch.manual_seed(1)
    agent, data, _ = tiny_agent(*easy, *overrides)
    for _ in range(2):
        roll = agent.score(data.collector.collect())
    data.env.close()
    return agent, roll


def recorded(*overrides: str, episodes: int = 8) -> tuple:
    torch.manual_seed(0)
    agent, data, _ = tiny_agent(*overrides)
    freeze(agent, data.env.num_envs)
    rolls = record(agent, data.env, episodes=episodes, context=data.context, rollout_length=data.rollout_length)
    data.close()
    return agent, data, rolls
