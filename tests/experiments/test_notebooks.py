"""Small runs of the notebooks, and their shared functions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers.tiny import REPO

from worldmodel.errors import ConfigError
from worldmodel.experiments.notebook import scale, sized, trained

NOTEBOOKS = sorted((REPO / "notebooks").glob("*.ipynb"))


def read(path: Path):
    return pytest.importorskip("nbformat").read(path, as_version=4)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs are shared by the notebooks here."""
    return tmp_path_factory.mktemp("notebooks")


def test_there_are_five() -> None:
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_small(path: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("ipykernel", "constriction", "zstandard"):
        pytest.importorskip(package)
    client = pytest.importorskip("nbclient").NotebookClient
    monkeypatch.setenv("WORLDMODEL_SCALE", "small")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:IProgress not found")  # no ipywidgets, which tqdm would like
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPO), os.environ.get("PYTHONPATH", "")]))
    notebook = read(path)
    before = [cell.get("outputs") for cell in notebook.cells]
    client(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(workplace)}}).execute()
    answer = notebook.cells[-1].outputs[-1]["data"]["text/markdown"]
    assert len(answer) > 100 and "nan" not in answer
    assert any("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))
    assert not any(output.get("name") == "stderr" for cell in notebook.cells for output in cell.get("outputs", []))
    assert before != [cell.get("outputs") for cell in notebook.cells]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_question_first_answer_last_no_logic(path: Path) -> None:
    cells = read(path).cells
    assert cells[0].cell_type == "markdown" and "**Question:**" in cells[0].source
    assert cells[-2].source == "## Answer" and cells[-1].source.count('f"') > 2
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    assert "class " not in code and "/work" not in code
    assert path.stat().st_size < 1_000_000


def test_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLDMODEL_SCALE", raising=False)
    assert scale() == "full" and sized(2, 1) == 2
    monkeypatch.setenv("WORLDMODEL_SCALE", "small")
    assert sized(2, 1) == 1
    monkeypatch.setenv("WORLDMODEL_SCALE", "huge")
    with pytest.raises(ConfigError, match="WORLDMODEL_SCALE=huge: allowed are full, small"):
        scale()


def test_a_finished_run_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLDMODEL_SCALE", "small")
    wanted = ("experiment=mess3", "total_steps=128")
    first = trained(*wanted, folder=tmp_path)
    made = first.stat().st_mtime_ns
    assert trained(*wanted, folder=tmp_path) == first and first.stat().st_mtime_ns == made
    other = trained(*wanted, "seed=100", folder=tmp_path)
    assert other != first and other.exists()
