"""Return to the last checkpoint after a loss that is not finite."""

from __future__ import annotations

import math
from dataclasses import dataclass

from omegaconf import DictConfig

from worldmodel.errors import check_range


@dataclass
class Rollback:
    """Settings of the return to the last checkpoint, whose weights are finite, with smaller learning rates.

    Args:
        times: maximal number of returns in a run.
        factor: factor of the learning rates at each return.
        max_loss: a loss of this absolute value counts as not finite; None: only nan and infinity do.

    Raises:
        ConfigError: for values out of range.
    """

    times: int = 0
    factor: float = 0.5
    max_loss: float | None = None

    def __post_init__(self) -> None:
        check_range("rollback.times", self.times, "[0, inf)", whole=True)
        check_range("rollback.factor", self.factor, "(0, 1)")
        check_range("rollback.max_loss", self.max_loss, "(0, inf)", null=True)

    @property
    def limit(self) -> float:
        """Upper bound of the loss's absolute value."""
        return math.inf if self.max_loss is None else self.max_loss

    def slow_down(self, cfg: DictConfig) -> None:
        """Multiply the learning rates of a configuration in place. Later checkpoints contain the new rates."""
        rates = cfg.optimizer
        rates.lr *= self.factor
        for part, rate in (rates.get("part_lr") or {}).items():
            if rate is not None:
                rates.part_lr[part] = rate * self.factor
