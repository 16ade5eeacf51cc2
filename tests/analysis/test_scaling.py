"""Fits of known power laws."""

from __future__ import annotations

import numpy as np
import pytest

from worldmodel.analysis.probes.scaling import draw_law, fit_power_law
from worldmodel.analysis.report.canvas import panels

SIZE = np.array([1e4, 3e4, 1e5, 3e5, 1e6])


@pytest.mark.parametrize(("floor", "exponent"), [(0.79, 0.34), (0.0, 0.5), (2.0, 1.2)])
def test_an_exact_law_is_found(floor: float, exponent: float) -> None:
    law = fit_power_law(SIZE, floor + 20 * SIZE**-exponent)
    assert law.floor == pytest.approx(floor, abs=1e-4) and law.exponent == pytest.approx(exponent, abs=1e-3)
    assert law(1e7) == pytest.approx(floor + 20 * 1e7**-exponent, abs=1e-3) and law.rmse < 1e-5


def test_noise_stays_in_the_residual() -> None:
    noise = 1e-3 * np.random.default_rng(0).normal(size=len(SIZE))
    law = fit_power_law(SIZE, 1 + 50 * SIZE**-0.5 + noise)
    assert 0 < law.rmse < 2e-3 and law.floor == pytest.approx(1, abs=0.01)


def test_a_loss_that_does_not_fall_has_no_scale() -> None:
    law = fit_power_law(SIZE, np.array([1.0, 1.1, 1.2, 1.3, 1.4]))
    assert law.scale == 0 and law.floor == pytest.approx(1.2)


@pytest.mark.parametrize("size", [[1.0, 2.0, 2.0], [0.0, 1.0, 2.0]])
def test_too_few_sizes_are_refused(size: list[float]) -> None:
    with pytest.raises(ValueError, match="needed are 3 positive sizes and finite losses"):
        fit_power_law(np.array(size), np.ones(3))


def test_figure_shows_points_law_and_floor() -> None:
    law = fit_power_law(SIZE, 1 + 20 * SIZE**-0.5)
    (axis,) = panels(1)[1]
    draw_law(axis, SIZE, law(SIZE), law)
    points, curve, floor = axis.lines
    assert list(points.get_ydata()) == list(law(SIZE)) and curve.get_ydata()[-1] == pytest.approx(law(3e6))
    assert floor.get_ydata()[0] == law.floor and axis.get_xscale() == "log"
