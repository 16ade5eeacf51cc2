"""How a loss falls with size: a power law over a floor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass
class PowerLaw:
    """loss = floor + scale (size / reference)^-exponent."""

    floor: float  # what no size takes away, in units of the loss
    scale: float  # how far above it the loss is at the reference size
    exponent: float
    reference: float  # geometric mean of the sizes
    rmse: float  # of the fit, in units of the loss

    def __call__(self, size: np.ndarray | float) -> np.ndarray | float:
        return self.floor + self.scale * (np.asarray(size, dtype=float) / self.reference) ** -self.exponent


def fit_power_law(size: np.ndarray, loss: np.ndarray, exponents: tuple[float, float] = (0.01, 4.0)) -> PowerLaw:
    """Least squares of E + A N^-alpha (Hoffmann et al. 2022, eq. 2, one factor) with E >= 0 and A >= 0.

    For a given alpha, E and A are linear least squares; alpha is searched for in `exponents`, on a grid and then by
    golden section. size (M,) positive, loss (M,), at least three different sizes; the exponent is
    hardly determined by so few, or by sizes within a factor of ten.
    """
    size, loss = np.asarray(size, dtype=float), np.asarray(loss, dtype=float)
    if size.shape != loss.shape or len(np.unique(size)) < 3 or (size <= 0).any() or not np.isfinite(loss).all():
        raise ValueError(f"size={size.tolist()}, loss={loss.tolist()}: needed are 3 positive sizes and finite losses")
    reference = float(np.exp(np.log(size).mean()))

    def solve(alpha: float) -> tuple[float, float, float]:
        """The sum of squares, E and A."""
        x = (size / reference) ** -alpha
        spread = ((x - x.mean()) ** 2).sum()
        scale = max(0.0, ((x - x.mean()) * (loss - loss.mean())).sum() / spread)
        floor = loss.mean() - scale * x.mean()
        if floor < 0:
            floor, scale = 0.0, max(0.0, (x * loss).sum() / (x * x).sum())
        return ((floor + scale * x - loss) ** 2).sum(), floor, scale

    grid = np.geomspace(*exponents, 200)
    best = int(np.argmin([solve(a)[0] for a in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    ratio = (5**0.5 - 1) / 2
    while high - low > 1e-7 * high:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if solve(left)[0] < solve(right)[0] else (left, high)
    alpha = (low + high) / 2
    squares, floor, scale = solve(alpha)
    return PowerLaw(float(floor), float(scale), float(alpha), reference, float(np.sqrt(squares / len(size))))


def draw_law(axis: Axes, size: np.ndarray, loss: np.ndarray, law: PowerLaw) -> None:
    """Measured losses, the fitted law and its floor, over log size."""
    axis.plot(size, loss, "o", ms=4)
    along = np.geomspace(np.min(size), np.max(size) * 3, 100)
    label = f"{law.floor:.4g} + {law.scale:.3g} (N / {law.reference:.3g})^−{law.exponent:.2f}"
    axis.plot(along, law(along), "-", lw=1, label=label)
    axis.axhline(law.floor, color="k", lw=0.6, ls="--")
    axis.set(xscale="log")
    axis.legend(fontsize=8)
