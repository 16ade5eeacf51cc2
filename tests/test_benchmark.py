"""Statistics by hand; the table counts failed seeds; a suite runs, is resumed, and reports."""

import csv
from pathlib import Path

import numpy as np
import pytest

from worldmodel.benchmark import COLUMNS, collect, steps_to, summarise
from worldmodel.statistics import iqm, iqm_interval


def write_metrics(folder: Path, returns: list[float]) -> None:
    folder.mkdir(parents=True)
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["env_steps", "wall_s", "return_ext"])
        writer.writerows([[1000 * (i + 1), 1.5 * (i + 1), x] for i, x in enumerate(returns)])


def test_interquartile_mean_by_hand() -> None:
    assert iqm(np.array([100.0, 1.0, 2.0, 3.0, -100.0])) == 2.0
    assert iqm(np.array([0.0, 1.0, 2.0, 9.0])) == 1.5


def test_interval_covers_and_shrinks() -> None:
    draws = np.random.default_rng(1).normal(5.0, 1.0, 400)
    mean, low, high = iqm_interval(draws)
    assert low < mean < high and low < 5.0 < high
    _, wide_low, wide_high = iqm_interval(draws[:10])
    assert wide_high - wide_low > high - low
    assert iqm_interval(draws) == iqm_interval(draws)


def test_steps_to_threshold() -> None:
    metrics = {k: np.array(v) for k, v in (("return_ext", [np.nan, 0.5, 0.95]), ("env_steps", [1, 2, 3]))}
    metrics["wall_s"] = metrics["env_steps"] / 2
    assert steps_to(metrics, 0.9) == (3, 1.5)
    assert steps_to(metrics, 0.99) == (np.inf, np.inf)


def test_a_seed_that_failed_is_counted(tmp_path: Path) -> None:
    write_metrics(tmp_path / "a_seed0", [0.2, 0.95])
    write_metrics(tmp_path / "a_seed1", [0.1, 0.2])
    rows = collect("toy", ["a"], 3, 0.9, tmp_path)
    assert {tuple(r) for r in rows} == {COLUMNS}
    table = summarise(rows, ["a"], 0.9)
    assert "| 1 of 3 | never |" in table
    finals = [r["value"] for r in rows if r["metric"] == "return_final"]
    assert finals == pytest.approx([0.95, 0.2, 0.0])
