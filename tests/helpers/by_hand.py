"""Transitions and networks small enough to compute with by hand."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor, nn
from torch.nn import functional as F

from helpers.rollouts import hand_made
from helpers.specs import agent_spec
from worldmodel.model.heads import Prediction
from worldmodel.model.world_model import Outputs
from worldmodel.types import Rollout

PLANE, ACTS = Box(-10, 10, (2,), np.float32), Discrete(4)
OBS = [[0.0, 0.0], [1.0, 2.0], [9.0, 2.0]]  # two transitions
WHITE = torch.tensor([[[-1.0, -1.0], [1.0, 1.0], [5.0, 1.0]]])  # by the first two rows; 17 is cut to 5


class Same(nn.Module):
    """Identity encoder of the plane, without parameters."""

    shape = (2,)

    def __init__(self, space: Box = PLANE, dim: int = 2):
        super().__init__()
        self.space = space

    def forward(self, obs: Tensor) -> Tensor:
        return obs.float()


class Stub(nn.Module):
    """A network that calls a function."""

    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, *args):
        return self.fn(*args)


def rollout(obs: list, act: list, mask: list | None = None, num_new: int | None = None) -> Rollout:
    """One sequence of observations (L+1), with the actions (L) and masks (L) of all rows but the last."""
    rows = len(obs)
    mask = torch.tensor([[*(mask or [True] * (rows - 1)), False]])
    started = F.pad(~mask[:, :-1], (1, 0)).long()  # a masked row is the last one of its episode
    return hand_made(
        obs=torch.tensor([obs]),
        act=torch.tensor([[*act, 0]]),
        episode=started.cumsum(1),
        valid=torch.ones(1, rows, dtype=torch.bool),
        mask=mask,
        end=~mask,
        num_new=num_new or rows - 1,
    )


def outputs(y: list, error: list | None = None) -> Outputs:
    """Outputs of a world model with latents (1, T+1, D) and errors (1, T, D); h is zero and of width 3."""
    y = torch.tensor([y])
    h = torch.zeros(1, y.shape[1] - 1, 3)
    change, one = torch.tensor([error or 0.0]), torch.ones(())
    flat = Prediction(torch.zeros_like(change), torch.zeros_like(change), *[h[..., 0]] * 3)
    return Outputs(y, y, h, flat, change, one, one)


ROLL = rollout(OBS, [1, 0])
SPEC = agent_spec(Same, PLANE, ACTS)  # of an agent in the plane


def shift(phi: Tensor, act: Tensor) -> Tensor:
    """Prediction of an ensemble of one forward model: phi plus the action."""
    return (phi + act[..., None])[None]
