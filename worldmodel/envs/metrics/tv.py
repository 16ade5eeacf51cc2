"""Effect of the noisy TV on the agent."""

from __future__ import annotations

from typing import Any

from worldmodel.masked import masked_mean
from worldmodel.types import Rollout


class TVShare:
    """Shares of the noisy TV in the last rollout.

    tv_action_share    share of the actions that are the TV's
    tv_rew_int_share   share of the positive intrinsic reward on transitions by the TV's action (also that of a sham)
                       or to an observation that shows noise
    """

    def __init__(self) -> None:
        self.found: dict[str, float] = {}

    def add(self, roll: Rollout) -> None:
        if not roll.info or "tv_on" not in roll.info:
            return
        mask, pressed = roll.new_steps(roll.mask), roll.info["tv_act"][:, 1:]
        paid = (roll.rew_int * mask).clamp_min(0.0)
        watched = roll.info["tv_on"][:, 1:] | pressed
        self.found = {
            "tv_action_share": float(masked_mean(pressed.float(), mask)),
            "tv_rew_int_share": float((paid * watched).sum() / paid.sum().clamp_min(1e-12)),
        }

    def summary(self) -> dict[str, float]:
        return self.found

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any], running: bool) -> None: ...
