"""Interface of metrics counted over rollouts."""

from __future__ import annotations

from typing import Any, Protocol

from worldmodel.types import Rollout


class Metric(Protocol):
    """Metric over scored rollouts, whose values are columns of metrics.csv; empty if `info` lacks its entries."""

    def add(self, roll: Rollout) -> None:
        """Add one rollout of N x T steps."""
        ...

    def summary(self) -> dict[str, float]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], running: bool) -> None:
        """Continue counting from a saved state; with `running`, the episodes of that state continue."""
        ...
