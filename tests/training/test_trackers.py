"""The rows of metrics.csv in every tracker, without a network."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
import warnings
from datetime import datetime
from pathlib import Path

import pytest
from helpers.runs import rows
from helpers.tiny import EASY

from worldmodel.training.loggers import Sacred

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


def test_wandb_has_one_offline_run_per_run_of_a_sweep(cli, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("one", "two"):
        ended = cli("logger=wandb", *EASY, "total_steps=64", f"run_dir={name}", f"name={name}")
        assert ended.code == 0, ended.err
        (file,) = (tmp_path / name / "wandb").glob("offline-run-*/run-*.wandb")
        data = file.read_bytes()
        assert b"loss_delta" in data and f"{name}_seed0".encode() in data


def sacred(module: str):
    """Of the package sacred, which imports the deprecated pkg_resources."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(module)


def test_sacred_files_hold_the_rows_and_the_configuration(cli, tmp_path: Path) -> None:
    sacred("sacred")
    for seed in (0, 1):
        ended = cli("logger=sacred", *RUN, f"seed={seed}", "logger.beat_s=1e-9" if seed else "logger.beat_s=100")
        assert ended.code == 0 and ended.err == "", ended.err
        run = tmp_path / "run" / "sacred" / str(seed + 1)
        read = {name: json.loads((run / f"{name}.json").read_text()) for name in ("run", "config", "metrics")}
        assert read["run"]["status"] == "COMPLETED" and read["run"]["experiment"]["name"] == f"doorkey_seed{seed}"
        assert read["config"]["env"]["id"] == "MiniGrid-Empty-5x5-v0" and read["config"]["seed"] == seed
        expected = rows(tmp_path / "run")
        found = read["metrics"]["loss_delta"]
        assert found["steps"] == [r["env_steps"] for r in expected] == [32, 64]
        assert found["values"] == pytest.approx([r["loss_delta"] for r in expected], rel=1e-5)


def test_sacred_into_mongodb(monkeypatch) -> None:
    """The observer receives the URL and the metrics in its own format; no server is needed."""
    observers = sacred("sacred.observers")
    events = []

    class Observer:
        def __init__(self, url: str, db_name: str):
            events.append((url, db_name))

        def __getattr__(self, event: str):
            return lambda *arguments: events.append((event, *arguments))

    monkeypatch.setattr(observers, "MongoObserver", Observer)
    logger = Sacred("unused", url="mongodb://there:27017", database="mine")
    logger.log_metrics({"loss": 0.5}, step=32)
    logger.finalize("failed")
    assert events[0] == ("mongodb://there:27017", "mine")
    assert [event for event, *_ in events[1:]] == [
        "started_event", "log_metrics", "heartbeat_event", "failed_event", "join",
    ]  # fmt: skip
    entry = events[2][1]["loss"]
    assert entry["steps"] == [32] and entry["values"] == [0.5] and isinstance(entry["timestamps"][0], datetime)


def test_trackio_keeps_the_rows_of_each_run(cli, tmp_path: Path, monkeypatch) -> None:
    if not importlib.util.find_spec("trackio"):
        pytest.skip("trackio is not installed")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "store"))  # read once, by its import
    ended = cli("logger=trackio", *RUN, "name=mine")
    assert ended.code == 0 and ended.err == "", ended.err
    (file,) = (tmp_path / "store").glob("worldmodel*.db")
    with sqlite3.connect(file) as store:
        found = store.execute("select run_name, step, metrics from metrics order by step").fetchall()
    expected = rows(tmp_path / "run")
    assert [(name, step) for name, step, _ in found] == [("mine_seed0", r["env_steps"]) for r in expected]
    assert [json.loads(m)["loss_delta"] for *_, m in found] == pytest.approx(
        [r["loss_delta"] for r in expected], rel=1e-5
    )


@pytest.mark.parametrize("package", ["sacred", "trackio"])
def test_a_tracker_that_is_not_installed_is_named(cli, monkeypatch, package: str) -> None:
    monkeypatch.setattr(
        "worldmodel.training.loggers.import_module", lambda name: importlib.import_module("no_such_module")
    )
    ended = cli(f"logger={package}", *RUN)
    assert ended.code == 2 and ended.err.startswith(f"error: logger={package}: needs the package {package} (")
