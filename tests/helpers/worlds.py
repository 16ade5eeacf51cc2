"""Curiosity signals and hand-made rollouts without an environment."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor, nn

import encoders
from helpers.rollouts import hand_made
from helpers.specs import agent_spec
from worldmodel.curiosity import Curiosity
from worldmodel.types import Rollout

VIEW = Box(0, 255, (7, 7, 3), np.uint8)
ACTS = Discrete(3)


class Plain(nn.Module):
    """Identity encoder of vectors of whole numbers."""

    num_values = (100,)

    def __init__(self, space: gym.Space, dim: int = 0):
        super().__init__()
        self.shape = space.shape

    def forward(self, obs: Tensor) -> Tensor:
        return obs.float()


def signal(kind: type[Curiosity], space: gym.Space = VIEW, encoder: Any = None, envs: int = 1, **options: Any) -> Any:
    """A signal for an observation space, built as from a configuration."""
    kind_of = encoder or partial(encoders.Grid, dim=16)

    def make_encoder(space: gym.Space = space, **changes: Any) -> Any:
        return kind_of(space, **changes)

    return kind(agent_spec(make_encoder, space, ACTS, num_envs=envs), **options)


def vectors(*points: tuple[float, ...]) -> Tensor:
    """(1, T+1, D) observations of one environment."""
    return torch.tensor([points])


def views(path: list[list[int]], seed: int = 0) -> Tensor:
    """Places (N, T+1) -> views (N, T+1, 7, 7, 3), one random view for each place."""
    generator = torch.Generator().manual_seed(seed)
    size = (100, 7, 7)
    there = [torch.randint(0, n, size, dtype=torch.uint8, generator=generator) for n in (11, 6, 4)]
    return torch.stack(there, -1)[torch.tensor(path)]


def rollout(obs: Tensor, episode: list[list[int]] | None = None, act: Tensor | None = None) -> Rollout:
    """A rollout of the T transitions between obs (N, T+1, ...), without context.

    Transitions from one episode to another are masked.
    """
    lead = obs.shape[:2]
    numbers = torch.zeros(lead, dtype=torch.long) if episode is None else torch.tensor(episode)
    mask = torch.zeros(lead, dtype=torch.bool)
    mask[:, :-1] = numbers[:, 1:] == numbers[:, :-1]
    act = torch.zeros(lead, dtype=torch.long) if act is None else act
    valid = torch.ones(lead, dtype=torch.bool)
    return hand_made(obs=obs, act=act, episode=numbers, valid=valid, mask=mask)


@torch.no_grad()
def pay(curiosity: Curiosity, roll: Rollout) -> Tensor:
    """Raw rewards (N, T) of a signal that does not read the world model."""
    return curiosity.reward(roll, None)
