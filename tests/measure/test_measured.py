"""Measurements in parts: each part keeps its figures if another fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from worldmodel import gpu
from worldmodel.errors import ConfigError
from worldmodel.measure.runner import measure


def counted(folder: Path, scale: float) -> dict:
    """How many.

    The details follow.
    """
    assert folder.is_dir()
    return {"n": round(10 * scale), "by": {"a": 0.12345}, "errors": {"x": "long"}}


def listed(folder: Path, scale: float) -> dict:
    """One row each."""
    return {"rows": [{"name": "a", "ms": 1.5, "error": None}, {"name": "b", "error": "left out"}]}


def broken(folder: Path, scale: float) -> dict:
    raise OSError("no disk")


PARTS = {"counted": counted, "broken": broken, "listed": listed}


def test_a_failing_part_does_not_stop_the_others(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no disk"):
        measure("toy", "Toys", PARTS, None, 0.5, tmp_path)
    found = json.loads((tmp_path / "toy.json").read_text())
    assert found.keys() == {"counted", "listed"} and found["counted"]["figures"]["n"] == 5
    measure("toy", "Toys", PARTS, ["listed"], 1.0, tmp_path)
    again = json.loads((tmp_path / "toy.json").read_text())
    assert again["counted"] == found["counted"] and again["listed"]["scale"] == 1.0
    text = (tmp_path / "toy.md").read_text()
    assert text.startswith("# Toys\n\nWritten by `python -m worldmodel.toy`")
    assert "\nHow many. The details follow.\n" in text, "the whole docstring of a part describes it"
    assert "| n | 5 |\n| by.a | 0.123 |\n\n" in text, "errors are in the JSON file alone"
    assert "| name | ms | error |\n|---|---|---|\n| a | 1.5 |  |\n| b |  | left out |\n" in text
    assert text.index("## counted") < text.index("## listed")


@pytest.mark.parametrize(
    "asked, message",
    [
        ((["x"], 1.0), r"parts=\['x'\]: allowed are null, counted, "),
        (([], 1.0), r"parts=\[\]: allowed are null, counted, "),
        ((None, 0), "scale=0"),
    ],
)
def test_bad_input(asked: tuple, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        measure("toy", "Toys", PARTS, *asked, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_is_needed(cli) -> None:
    ended = cli(main=gpu.main, tiny=[])
    assert ended.code == 2 and ended.err == "error: device=cuda: torch finds no GPU on this machine\n"
