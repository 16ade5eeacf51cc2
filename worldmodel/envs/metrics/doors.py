"""Success of the episodes that passed a door."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from worldmodel.types import Rollout


class DoorSuccess:
    """Success given that a door was passed, from `info["room"]` (see `Rooms`), over the last `episode_window` episodes.

    door_share     share of the episodes that passed a door
    door_success   share of these whose return is above `success`; nan where there are none

    No column without a definition of success.
    """

    def __init__(self, episode_window: int = 200, success: float | None = None):
        self.success = success
        self.ret: dict[int, float] = {}  # return of each copy's episode so far
        self.finished: deque[tuple[bool, bool]] = deque(maxlen=episode_window)  # passed a door, succeeded

    def add(self, roll: Rollout) -> None:
        if self.success is None or not roll.info or "room" not in roll.info:
            return
        passed = roll.info["room"].cpu().numpy()[:, :, 0] > 0  # (N, T+1): in this episode
        rew = (roll.new_steps(roll.rew_ext) * roll.new_steps(roll.mask)).cpu().numpy()
        over = roll.new_steps(roll.end | roll.trunc).cpu().numpy()
        for copy in range(len(rew)):
            start = 0
            for end in np.flatnonzero(over[copy]):
                ret = self.ret.pop(copy, 0.0) + float(rew[copy, start : end + 1].sum())
                self.finished.append((bool(passed[copy, end + 1]), ret > self.success))
                start = end + 1
            self.ret[copy] = self.ret.get(copy, 0.0) + float(rew[copy, start:].sum())

    def summary(self) -> dict[str, float]:
        if not self.ret:
            return {}
        successes = [success for passed, success in self.finished if passed]
        return {
            "door_share": len(successes) / len(self.finished) if self.finished else float("nan"),
            "door_success": float(np.mean(successes)) if successes else float("nan"),
        }

    def state_dict(self) -> dict[str, Any]:
        return {"ret": dict(self.ret), "finished": list(self.finished)}

    def load_state_dict(self, state: dict[str, Any], running: bool) -> None:
        self.ret = dict(state["ret"]) if running else dict.fromkeys(state["ret"], 0.0)
        self.finished.extend(tuple(x) for x in state["finished"])
