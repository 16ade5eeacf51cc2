"""Power law over a floor: a loss as a function of size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize_scalar, nnls

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass
class PowerLaw:
    """loss = floor + scale (size / reference)^-exponent."""

    floor: float  # limit of large sizes, in units of the loss
    scale: float  # loss above the floor at the reference size
    exponent: float
    reference: float  # geometric mean of the sizes
    rmse: float  # of the fit's residuals, in units of the loss

    def __call__(self, size: np.ndarray | float) -> np.ndarray | float:
        return self.floor + self.scale * (np.asarray(size, dtype=float) / self.reference) ** -self.exponent


def fit_power_law(size: np.ndarray, loss: np.ndarray, exponents: tuple[float, float] = (0.01, 4.0)) -> PowerLaw:
    """Fit E + A N^-alpha (Hoffmann et al. 2022, eq. 2, one factor) with E >= 0 and A >= 0 by least squares.

    For a given alpha, E and A are non-negative linear least squares; alpha is minimised in `exponents`, on a grid and
    then by Brent's method. A few sizes, or sizes within a factor of 10, hardly determine the exponent.

    Args:
        size: (M,) positive, at least three different ones.
        loss: (M,) finite.
        exponents: bounds of alpha.

    Raises:
        ValueError: for other sizes or losses.
    """
    size, loss = np.asarray(size, dtype=float), np.asarray(loss, dtype=float)
    if size.shape != loss.shape or len(np.unique(size)) < 3 or (size <= 0).any() or not np.isfinite(loss).all():
        raise ValueError(f"size={size.tolist()}, loss={loss.tolist()}: needed are 3 positive sizes and finite losses")
    reference = float(np.exp(np.log(size).mean()))

    def solve(alpha: float) -> tuple[np.ndarray, float]:
        """Return E and A, and the norm of the residuals."""
        return nnls(np.stack([np.ones_like(size), (size / reference) ** -alpha], 1), loss)

    grid = np.geomspace(*exponents, 200)
    best = int(np.argmin([solve(a)[1] for a in grid]))
    bounds = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    alpha = float(minimize_scalar(lambda a: solve(a)[1], bounds=bounds, options={"xatol": 1e-8}).x)
    (floor, scale), norm = solve(alpha)
    return PowerLaw(float(floor), float(scale), alpha, reference, float(norm / np.sqrt(len(size))))


def draw_law(axis: Axes, size: np.ndarray, loss: np.ndarray, law: PowerLaw) -> None:
    """Draw measured losses, the fitted law and its floor over log size."""
    axis.plot(size, loss, "o", ms=4)
    along = np.geomspace(np.min(size), np.max(size) * 3, 100)
    label = f"{law.floor:.4g} + {law.scale:.3g} (N / {law.reference:.3g})^−{law.exponent:.2f}"
    axis.plot(along, law(along), "-", lw=1, label=label)
    axis.axhline(law.floor, color="k", lw=0.6, ls="--")
    axis.set(xscale="log")
    axis.legend(fontsize=8)
