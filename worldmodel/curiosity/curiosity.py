"""The seam of every intrinsic reward."""

from __future__ import annotations

from torch import Tensor, nn

from worldmodel.types import Rollout
from worldmodel.world_model import Outputs


class Curiosity(nn.Module):
    """rollout -> raw reward; minibatch -> losses of the signal's own networks, if it has any."""

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        """Raw intrinsic reward (B, T) of the transitions t -> t+1, under the frozen model that acted."""
        raise NotImplementedError

    def losses(self, roll: Rollout, out: Outputs) -> dict[str, Tensor]:
        """Unreduced (B, T) losses; none by default."""
        return {}
