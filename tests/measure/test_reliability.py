"""The parts of `make reliability`, with a few trials each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from worldmodel.errors import ConfigError
from worldmodel.measure.reliability.command import MEASUREMENTS, reliability

QUICK = ["saves", "malformed"]  # test_resume.py and test_faults.py cover kills and faults of small runs
OTHERS = [part for part in MEASUREMENTS if part not in QUICK]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reliability")
    reliability(0.01, folder, QUICK, folders=[str(folder)])
    return folder


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("others")
    reliability(0.01, folder, OTHERS)
    return folder


def figures(out: Path, part: str) -> dict:
    return json.loads((out / "reliability.json").read_text())[part]["figures"]


@pytest.mark.slow
def test_runs_that_are_killed(others: Path) -> None:
    killed = figures(others, "killed")
    assert killed["runs"] == killed["equal_weights"] == 2


@pytest.mark.slow
def test_the_shipped_run_is_killed(others: Path) -> None:
    shipped = figures(others, "shipped")
    assert shipped["runs"] == shipped["equal_weights"] == 1 and shipped["environment_steps"] >= 16_000


@pytest.mark.slow
def test_runs_that_receive_a_signal(others: Path) -> None:
    terminated = figures(others, "terminated")
    assert terminated["runs"] == terminated["equal_weights"] == 2 and terminated["env_steps_lost"] == 0
    assert set(terminated["exit_codes"]) <= {"resumable", "done", "-15"}  # -15: before Python had a handler


def test_saves_that_are_killed(out: Path) -> None:
    (found,) = figures(out, "saves").values()
    assert found["kills"] == 5 and found["unreadable_newest"] == found["older_than_acknowledged"] == 0


@pytest.mark.slow
def test_faults(others: Path) -> None:
    for kind, found in figures(others, "faults").items():
        assert found["injected"] == found["detected_and_replaced"] == 2, kind
        assert found["false_continuations"] == 0
        assert (found["seconds_to_replacement"]["max"] >= 0.5) or kind != "freeze"


def test_malformed(out: Path) -> None:
    found = figures(out, "malformed")
    assert found["files"] == found["rejected_with_a_named_error"] >= 50 and found["accepted"] == []
    assert found["good_file_accepted"] and found["code_executed"] == 0


@pytest.mark.slow
def test_repeated_and_ranks(others: Path) -> None:
    assert figures(others, "repeated") == {"runs": 2, "distinct_hashes": 1, "another_seed_differs": True}
    assert 0 < figures(others, "ranks")["max_relative_difference"]["random"] <= 1e-5


def test_the_report(out: Path) -> None:
    text = (out / "reliability.md").read_text()
    assert all(f"## {part}\n" in text for part in QUICK) and "| code_executed | 0 |" in text
    assert {p.name for p in out.iterdir()} == {"reliability.md", "reliability.json"}


def test_parts_that_are_not_run_keep_their_figures(tmp_path: Path) -> None:
    kept = {"figures": {"a": 1}, "scale": 1.0, "seconds": 2, "git": "x", "machine": {"cores": 1, "cpu": "y"}}
    (tmp_path / "reliability.json").write_text(json.dumps({"killed": kept}))
    with pytest.raises(ConfigError, match=r"parts=\['x'\]: allowed are null, killed, shipped, terminated"):
        reliability(1.0, tmp_path, parts=["x"])
    with pytest.raises(ConfigError, match="scale=0: allowed"):
        reliability(0, tmp_path)
    found = reliability(0.01, tmp_path, parts=["faults"])
    assert found["killed"] == kept and set(found) == {"killed", "faults"}
