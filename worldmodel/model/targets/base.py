"""Base class of latent targets."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.distributed import differentiable_sum
from worldmodel.types import Obs

LEARNT = 20_000.0  # steps; ten rollouts of the default size


class Target(nn.Module):
    """The latent y whose change the world model predicts, with the auxiliary losses that shape it.

    A constructor names any of the following arguments, and receives those that it names: `encoder` (the main encoder),
    `make_encoder` (builds a new encoder of the same configuration for the observation space; keywords override the
    configuration), `obs_space` and `act_space`.
    """

    shape: tuple[int, ...]
    scale_horizon: ClassVar[float] = 1e6
    """Steps that the running scale of y averages over; few for a y that learns, so that the scale follows it."""
    scaled: ClassVar[bool] = True
    """Whether y and its change are predicted in units of their running scale."""

    def forward(self, obs: Obs, z: Tensor) -> Tensor:
        """Return y (B, L+1, *shape) for obs leaves (B, L+1, ...) and the main encoder's z (B, L+1, *encoder.shape).

        Each class documents whether y carries gradients.
        """
        raise NotImplementedError

    def losses(self, obs: Obs, act: Tensor, z: Tensor, y: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Return the unreduced auxiliary losses (B, L) of the transitions t -> t+1, by name; empty by default.

        Arguments: act (B, L, *act_shape), mask (B, L). A loss of the whole batch is repeated, so that its masked mean
        is the loss itself.
        """
        return {}

    def update(self) -> None:
        """Follow an optimiser step; to be called after each one."""


def touched(mask: Tensor) -> Tensor:
    """Return the rows at either end of a real transition: mask (B, L) of transitions -> (B, L+1)."""
    return F.pad(mask, (0, 1)) | F.pad(mask, (1, 0))


def without_scale(x: Tensor, mask: Tensor) -> Tensor:
    """Return x (B, T, *shape) unchanged, with a gradient that is orthogonal to the scale of each entry.

    The result is x times the constant r divided by r, where r is the root mean square of an entry over the steps of all
    ranks where mask (B, T) is True. A loss of it decreases neither when an entry shrinks nor when it grows. In units of
    a running scale, which follows later, a shrinking latent would otherwise be predicted with a smaller error.
    """
    real = mask.flatten().to(x.dtype)
    total = differentiable_sum(torch.einsum("n...,n->...", x.flatten(0, 1).square(), real))
    square = total / differentiable_sum(real.sum()).clamp_min(1.0) + 1e-8
    return x * (square.detach() / square).sqrt()
