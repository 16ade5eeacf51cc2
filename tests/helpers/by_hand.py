"""Transitions and networks small enough to compute with by hand."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.model.world_model import Outputs
from worldmodel.types import Rollout

PLANE, ACTS = Box(-10, 10, (2,), np.float32), Discrete(4)
OBS = [[0.0, 0.0], [1.0, 2.0], [9.0, 2.0]]  # two transitions
WHITE = torch.tensor([[[-1.0, -1.0], [1.0, 1.0], [5.0, 1.0]]])  # by the first two rows; 17 is cut to 5


class Same(nn.Module):
    """An encoder of the plane that does nothing, and that nothing is learnt by."""

    shape = (2,)

    def __init__(self, space: Box = PLANE, dim: int = 2):
        super().__init__()
        self.space = space

    def forward(self, obs: Tensor) -> Tensor:
        return obs.float()


class Stub(nn.Module):
    """A network that is a function."""

    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, *args):
        return self.fn(*args)


def rollout(obs: list, act: list, mask: list | None = None, new: int | None = None) -> Rollout:
    """One sequence: its rows of observations, actions (of all rows but the last) and masks (the same)."""
    rows = len(obs)
    mask = torch.tensor([[*(mask or [True] * (rows - 1)), False]])
    started = F.pad(~mask[:, :-1], (1, 0)).long()  # a masked row is the last one of its episode
    return Rollout(
        obs=torch.tensor([obs]),
        act=torch.tensor([[*act, 0]]),
        episode=started.cumsum(1),
        valid=torch.ones(1, rows, dtype=torch.bool),
        mask=mask,
        rew_ext=torch.zeros(1, rows),
        end=~mask,
        trunc=torch.zeros(1, rows, dtype=torch.bool),
        logp=torch.zeros(1, new or rows - 1),
    )


def outputs(y: list, error: list | None = None) -> Outputs:
    """What the world model made of it: latents (1, T+1, D) and errors (1, T, D); h is zero and of width 3."""
    y = torch.tensor([y])
    h = torch.zeros(1, y.shape[1] - 1, 3)
    return Outputs(y, y, h, None, None if error is None else torch.tensor([error]), None, None)


ROLL = rollout(OBS, [1, 0])
SIZES = {"make_encoder": Same, "obs_space": PLANE, "encoder": Same(), "dim": 2}


def shift(phi: Tensor, act: Tensor) -> Tensor:
    """phi moved by the action, as one forward model of an ensemble."""
    return (phi + act[..., None])[None]
