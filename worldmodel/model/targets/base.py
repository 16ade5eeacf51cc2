"""Base class of latent targets."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.types import Obs


class Target(nn.Module):
    """The latent y whose change the world model predicts, with the auxiliary losses that shape it.

    A constructor names any of the following arguments, and receives those that it names: `encoder` (the main encoder),
    `make_encoder` (builds a new encoder of the same configuration for the observation space; keywords override the
    configuration), `obs_space` and `act_space`.
    """

    shape: tuple[int, ...]

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
