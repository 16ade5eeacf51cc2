"""Base class of heads, the predictions from the memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from worldmodel.types import Sequences

if TYPE_CHECKING:
    from worldmodel.model.world_model import Outputs, WorldModel


class Head(nn.Module):
    """Base class of predictions from the memory. Each head has losses and a parameter group.

    A constructor names any of the arguments `dim` (the width of h), `encoder`, `obs_space`, `act_space` and
    `target_shape`, and receives those that it names.
    """

    def losses(self, model: WorldModel, out: Outputs, seq: Sequences) -> dict[str, Tensor]:
        """Return the unreduced (B, T) losses by name, for the outputs `out` of the world model on `seq`."""
        raise NotImplementedError
