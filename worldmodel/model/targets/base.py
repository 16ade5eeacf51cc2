"""What a latent target is."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.types import Obs


class Target(nn.Module):
    """The latent y whose change the world model predicts, with the auxiliary losses that shape it.

    Constructors take what they need of `encoder` (the main one), `make_encoder` (builds a fresh one of the
    same configuration for the observation space; keywords override the configuration), `obs_space` and
    `act_space`.
    """

    shape: tuple[int, ...]

    def forward(self, obs: Obs, z: Tensor) -> Tensor:
        """obs leaves (B, L+1, ...) and the main encoder's z (B, L+1, *encoder.shape) of the same rows -> y
        (B, L+1, *shape). Each class says whether gradients flow."""
        raise NotImplementedError

    def losses(self, obs: Obs, act: Tensor, z: Tensor, y: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Unreduced losses (B, L) for the transitions t -> t+1 with act (B, L, *act_shape) and mask (B, L),
        besides the world model's own. A loss of the whole batch is repeated, so that its masked mean gives it
        back."""
        return {}

    def update(self) -> None:
        """To be called after each step of the optimiser."""


def touched(mask: Tensor) -> Tensor:
    """mask (B, L) of transitions -> (B, L+1): rows that are at either end of a real one."""
    return F.pad(mask, (0, 1)) | F.pad(mask, (1, 0))
