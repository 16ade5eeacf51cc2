"""Statistics by hand, and in comparison with rliable."""

import sys

import numpy as np
import pytest

from worldmodel.analysis.statistics import (
    band,
    improvement,
    interval,
    iqm,
    iqm_interval,
    optimality_gap,
    performance_profile,
)


def test_interquartile_mean_by_hand() -> None:
    assert iqm(np.array([100.0, 1.0, 2.0, 3.0, -100.0])) == 2.0
    assert iqm(np.array([0.0, 1.0, 2.0, 9.0])) == 1.5


def test_optimality_gap_by_hand() -> None:
    assert optimality_gap(np.array([0.5, 1.0, 3.0])) == pytest.approx(0.5 / 3)


def test_interval_covers_and_shrinks() -> None:
    draws = np.random.default_rng(1).normal(5.0, 1.0, 400)
    mean, low, high = iqm_interval(draws)
    assert low < mean < high and low < 5.0 < high
    _, wide_low, wide_high = iqm_interval(draws[:10])
    assert wide_high - wide_low > high - low
    assert iqm_interval(draws) == iqm_interval(draws)


def test_the_bootstrap_is_stratified() -> None:
    # all the variance lies between environments, whose shares are kept: nothing is uncertain
    assert iqm_interval([np.zeros(5), np.ones(5)]) == (0.5, 0.5, 0.5)
    _, low, high = iqm_interval(np.repeat([0.0, 1.0], 5))
    assert low < 0.4 and high > 0.6


def test_probability_of_improvement_by_hand() -> None:
    x, y = [np.array([1.0, 2.0])], [np.array([0.0, 1.0, 3.0])]  # 1 beats 0, ties 1; 2 beats 0 and 1
    found, low, high = improvement(x, y)
    assert found == pytest.approx(3.5 / 6) and low <= found <= high
    assert improvement(y, x)[0] == pytest.approx(1 - found)
    two = improvement([*x, np.array([1.0])], [*y, np.array([0.0])])  # environments count alike
    assert two[0] == pytest.approx((3.5 / 6 + 1) / 2)


def test_performance_profile_by_hand() -> None:
    share, low, high = performance_profile([np.array([0.1, 0.5]), np.array([0.9])], np.array([0.0, 0.5, 0.95]))
    assert share == pytest.approx([1, 1 / 3, 0])
    assert (low <= share).all() and (share <= high).all()
    assert low[1] == high[1] == pytest.approx(1 / 3), "strictly above: neither .1 nor .5 is, whichever is drawn"


def test_band_by_hand() -> None:
    middle, low, high = band(np.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0], [50.0, 5.0]]))
    assert middle == pytest.approx([1.5, 5.0])
    assert low[0] < 1.5 < high[0] and low[1] == high[1] == 5.0


def test_agrees_with_rliable(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        # absl, which it imports, keeps the stderr of this moment and closes it later: not that of pytest's capture
        patch.setattr("sys.stderr", sys.__stderr__)
        library = pytest.importorskip("rliable.library")
        metrics = pytest.importorskip("rliable.metrics")
    rng = np.random.default_rng(0)
    table = {"x": rng.beta(2, 2, (7, 3)), "y": np.round(rng.beta(2, 3, (7, 3)), 1)}  # (runs, environments)
    ours = {k: list(v.T) for k, v in table.items()}
    thresholds = np.linspace(0, 1, 9)
    profiles, profile_intervals = library.create_performance_profile(
        table, thresholds, reps=500, confidence_interval_size=0.95
    )

    def theirs(function, data):
        points, intervals = library.get_interval_estimates(data, lambda *x: np.array([function(*x)]), reps=500)
        return {k: (points[k][0], *intervals[k][:, 0]) for k in points}

    means, gaps = theirs(metrics.aggregate_iqm, table), theirs(metrics.aggregate_optimality_gap, table)
    for name in table:
        for point, other in ((iqm_interval(ours[name]), means), (interval(optimality_gap, ours[name]), gaps)):
            assert point[0] == pytest.approx(other[name][0], abs=1e-12)
            assert point[1:] == pytest.approx(other[name][1:], abs=0.03)
        share, low, high = performance_profile(ours[name], thresholds)
        assert share == pytest.approx(profiles[name], abs=1e-12)
        assert np.stack([low, high]) == pytest.approx(profile_intervals[name], abs=0.05)
    other = theirs(metrics.probability_of_improvement, {"x,y": (table["x"], table["y"])})["x,y"]
    point = improvement(ours["x"], ours["y"])
    assert point[0] == pytest.approx(other[0], abs=1e-12)
    assert point[1:] == pytest.approx(other[1:], abs=0.03)
