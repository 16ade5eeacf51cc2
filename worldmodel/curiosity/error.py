"""Squared prediction error."""

from __future__ import annotations

from torch import Tensor

from worldmodel.curiosity.base import Curiosity
from worldmodel.model.world_model import Outputs
from worldmodel.types import Rollout


class Error(Curiosity):
    """Squared prediction error mean_d (delta_d - mu_d)^2 in normalised units.

    This is the curiosity of Burda et al. 2018 (arXiv 1808.04355), here with the transformer's own prediction. It
    rewards everything that is unpredictable, including noise and turns under a partial view.
    """

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        return out.error.square().flatten(2).mean(-1)
