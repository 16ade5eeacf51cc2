"""Rollouts by hand, and signals on them, without an environment."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor, nn

import encoders
from worldmodel.curiosity import Curiosity
from worldmodel.training.config import fill
from worldmodel.types import Rollout, Sequences

VIEW = Box(0, 255, (7, 7, 3), np.uint8)
ACTS = Discrete(3)


class Plain(nn.Module):
    """An encoder that gives a vector of whole numbers as it is."""

    num_values = (100,)

    def __init__(self, space: gym.Space, dim: int = 0):
        super().__init__()
        self.shape = space.shape

    def forward(self, obs: Tensor) -> Tensor:
        return obs.float()


def signal(kind: type[Curiosity], space: gym.Space = VIEW, encoder: Any = None, envs: int = 1, **options: Any) -> Any:
    """A signal for an observation space, as a configuration would build it."""
    kind_of = encoder or partial(encoders.Grid, dim=16)

    def make_encoder(space: gym.Space = space, **changes: Any) -> Any:
        return kind_of(space, **changes)

    known = {"obs_space": space, "act_space": ACTS, "num_envs": envs, "encoder": make_encoder()}
    return fill(partial(kind, **options), make_encoder=make_encoder, **known)


def vectors(*points: tuple[float, ...]) -> Tensor:
    """(1, T+1, D) observations of one environment."""
    return torch.tensor([points])


def views(path: list[list[int]], seed: int = 0) -> Tensor:
    """Places (N, T+1) -> what is seen there, (N, T+1, 7, 7, 3), another view for each place."""
    generator = torch.Generator().manual_seed(seed)
    size = (100, 7, 7)
    there = [torch.randint(0, n, size, dtype=torch.uint8, generator=generator) for n in (11, 6, 4)]
    return torch.stack(there, -1)[torch.tensor(path)]


def rollout(obs: Tensor, episode: list[list[int]] | None = None, act: Tensor | None = None) -> Rollout:
    """A rollout of all T transitions between obs (N, T+1, ...), without context; those between episodes are masked."""
    lead = obs.shape[:2]
    numbers = torch.zeros(lead, dtype=torch.long) if episode is None else torch.tensor(episode)
    mask = torch.zeros(lead, dtype=torch.bool)
    mask[:, :-1] = numbers[:, 1:] == numbers[:, :-1]
    no, zero = torch.zeros(lead, dtype=torch.bool), torch.zeros(lead)
    act = torch.zeros(lead, dtype=torch.long) if act is None else act
    return Rollout(obs, act, numbers, ~no, mask, zero, no, no, logp=zero[:, :-1])


def cut(roll: Rollout, start: int, stop: int) -> Rollout:
    """The transitions start..stop of a rollout as one of its own."""
    rows = {field.name: getattr(roll, field.name)[:, start : stop + 1] for field in fields(Sequences)}
    return Rollout(**rows, logp=roll.logp[:, start:stop])


@torch.no_grad()
def pay(curiosity: Curiosity, roll: Rollout) -> Tensor:
    """What a signal that doesn't ask the world model pays: (N, T)."""
    return curiosity.reward(roll, None)
