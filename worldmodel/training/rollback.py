"""What happens when the loss is not finite: how often a run may go back, and with which learning rates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from omegaconf import DictConfig

from worldmodel.errors import check_range


@dataclass
class Rollback:
    """Up to `times` times, a run whose loss is not finite goes back to its last checkpoint, whose weights all are,
    with its learning rates times `factor`.

    max_loss: a loss of this size counts as not finite; None: only nan and infinity do.
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
        """What the loss must be smaller than, by its absolute value."""
        return math.inf if self.max_loss is None else self.max_loss

    def slow_down(self, cfg: DictConfig) -> None:
        """Multiply the configured learning rates; checkpoints from then on carry the new ones."""
        rates = cfg.optimizer
        rates.lr *= self.factor
        for part, rate in (rates.get("part_lr") or {}).items():
            if rate is not None:
                rates.part_lr[part] = rate * self.factor
