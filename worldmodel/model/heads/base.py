"""Base class of what is predicted from the memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from worldmodel.types import Sequences

if TYPE_CHECKING:
    from worldmodel.model.world_model import Outputs, WorldModel


class Head(nn.Module):
    """A prediction from the memory with losses and a parameter group of its own.

    Constructors take what they need of `dim` (the width of h), `encoder`, `obs_space`, `act_space` and `target_shape`.
    """

    def losses(self, model: WorldModel, out: Outputs, seq: Sequences) -> dict[str, Tensor]:
        """Unreduced (B, T) losses by name, of one pass of the world model over `seq`."""
        raise NotImplementedError
