"""The seam of everything that is counted over rollouts."""

from __future__ import annotations

from typing import Any, Protocol

from worldmodel.types import Rollout


class Metric(Protocol):
    """Scored rollouts in, columns of metrics.csv out; none where the environment doesn't tell what it counts."""

    def add(self, roll: Rollout) -> None:
        """Take in one rollout of N x T steps."""
        ...

    def summary(self) -> dict[str, float]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], running: bool) -> None:
        """Go on counting; also the episodes that were `running`, if they still are."""
        ...
