"""Every tracker gets the rows of metrics.csv, without a network."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_train import rows
from tiny import EASY

RUN = [*EASY, "total_steps=64", "run_dir=run"]


def test_mlflow_files_hold_the_rows(cli, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    ended = cli("logger=mlflow", *RUN)
    assert ended.code == 0, ended.err
    (file,) = (tmp_path / "run" / "mlflow").rglob("metrics/loss_delta")
    written = [(float(v), int(step)) for _, v, step in (line.split()[:3] for line in file.read_text().splitlines())]
    expected = rows(tmp_path / "run")
    assert [step for _, step in written] == [r["env_steps"] for r in expected] == [32, 64]
    assert [v for v, _ in written] == pytest.approx([r["loss_delta"] for r in expected], rel=1e-5)


def test_wandb_offline_a_run_of_its_own_for_each_of_a_sweep(cli, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("one", "two"):
        ended = cli("logger=wandb", *EASY, "total_steps=64", f"run_dir={name}", f"name={name}")
        assert ended.code == 0, ended.err
        (file,) = (tmp_path / name / "wandb").glob("offline-run-*/run-*.wandb")
        data = file.read_bytes()
        assert b"loss_delta" in data and f"{name}_seed0".encode() in data
