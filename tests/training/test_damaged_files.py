"""Files of a run that are damaged or cannot be written: nothing is lost, and one line names the fault."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.runs import check_whole, last, record, rows
from lightning.pytorch.loggers import TensorBoardLogger

from worldmodel.experience.replay.disk import Disk
from worldmodel.training import run as training_run
from worldmodel.training.loggers import tolerant
from worldmodel.training.metrics_file import read_metrics_file
from worldmodel.training.run_record import RunRecord

HEAD = "env_steps,wall_s,x\n"


@pytest.mark.parametrize(
    ("text", "columns", "kept", "damaged"),
    [
        (HEAD + "1,0.5,2\n2,0.7,\n", ["env_steps", "wall_s", "x"], ["1", "2"], 0),
        (HEAD + "1,0.5,2\n2,0.7", ["env_steps", "wall_s", "x"], ["1"], 0),  # killed while writing
        (HEAD + "1,0.5,2\n\0\0\0\0\n3,0.9,nan\n", ["env_steps", "wall_s", "x"], ["1", "3"], 1),
        (HEAD + "1,0.5,2\n2,0.7\n3,0.9,1,4\n4,a,1\n5,1.0,1\n", ["env_steps", "wall_s", "x"], ["1", "5"], 3),
        (HEAD + "2,0.5,2\n1,0.7,1\n3,0.9,1\n", ["env_steps", "wall_s", "x"], ["2", "3"], 1),
        ("time,value\n1,2\n", [], [], 2),
        ("\0\0\0\n1,2\n", [], [], 2),
        ("", [], [], 0),
    ],
)
def test_which_rows_are_kept(tmp_path: Path, text: str, columns: list[str], kept: list[str], damaged: int) -> None:
    (tmp_path / "m.csv").write_text(text)
    found = read_metrics_file(tmp_path / "m.csv")
    assert found.columns == columns and [row["env_steps"] for row in found.rows] == kept and found.damaged == damaged


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 3 updates, to be copied."""
    from helpers.runs import run_main
    from helpers.tiny import TINY

    folder = tmp_path_factory.mktemp("half") / "run"
    assert run_main([*TINY, "total_steps=96", f"run_dir={folder}"]) == 0
    return folder


def test_a_run_goes_on_with_a_damaged_metrics_file(cli, tmp_path: Path, half: Path) -> None:
    run = shutil.copytree(half, tmp_path / "run")
    lines = (run / "metrics.csv").read_text().splitlines()
    names = lines[0].split(",")
    assert names[-1] not in ("env_steps", "wall_s")
    lines = [",".join(line.split(",")[:-1]) for line in lines]  # of a version with one column less
    lines[2] = "\0" * 40
    text = "\n".join(lines) + "\n"
    (run / "metrics.csv").write_text(text)
    ended = cli("checkpoint=auto", f"run_dir={run}", "total_steps=128", tiny=[])
    assert ended.code == 0
    expected = f"{run}/metrics.csv: 1 damaged rows are left out; the file as it was is metrics.damaged.csv"
    assert ended.err == f"warning: {expected}\n"
    assert [row["env_steps"] for row in rows(run)] == [32, 96, 128] and list(rows(run)[0]) == names
    assert rows(run)[-1]["wall_s"] > float(lines[3].split(",")[1])
    assert (run / "metrics.damaged.csv").read_text() == text


def test_a_run_goes_on_without_its_header_and_record(cli, tmp_path: Path, half: Path) -> None:
    run = shutil.copytree(half, tmp_path / "run")
    (run / "metrics.csv").write_bytes(b"\0" * 100 + b"\n")
    (run / "run.json").write_bytes(b"\0" * 100)
    ended = cli("checkpoint=auto", f"run_dir={run}", "total_steps=128", tiny=[])
    assert ended.code == 0 and ended.err.count("\n") == 2
    assert f"warning: {run / 'run.json'}: damaged, a new record begins\n" in ended.err
    assert "metrics.csv: its header is damaged, a new file begins; the file as it was is metrics.damaged" in ended.err
    assert [row["env_steps"] for row in rows(run)] == [128] and record(run)["env_steps"] == 128


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process can grow beyond `size` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_at_the_end(cli, tmp_path: Path, half: Path) -> None:
    run = shutil.copytree(half, tmp_path / "run")
    good = (run / "checkpoints" / "last.ckpt").read_bytes()
    with largest_file(20_000):  # enough for everything but a checkpoint
        ended = cli("checkpoint=auto", f"run_dir={run}", "total_steps=128", tiny=[])
    assert ended.code == 1, ended.err
    assert ended.err.splitlines()[-1].startswith(
        f"error: {run}/checkpoints: no checkpoint could be written at env_steps=128"
    )
    assert "Traceback" not in ended.err and (run / "checkpoints" / "last.ckpt").read_bytes() == good
    assert record(run)["status"] == "failed" and not list(run.rglob("*.part"))
    assert cli("checkpoint=auto", f"run_dir={run}", "total_steps=128", tiny=[]).code == 0
    check_whole(run, 128)


def test_a_disk_that_is_full_before_the_first_rollout(cli, tmp_path: Path) -> None:
    with largest_file(1000):  # config.yaml is larger
        ended = cli("total_steps=32", "run_dir=run")
    assert ended.code == 1 and ended.err.count("\n") == 1, ended.err
    assert ended.err.startswith("error: run_dir=run: ") and "File too large" in ended.err
    assert not (tmp_path / "run").exists(), "nothing is left"


def test_a_replay_that_cannot_store_its_first_sequence(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Disk, "append", full)
    words = ["data.replay_batch=1", "data.replay_capacity=8", "data.replay_dir=re play"]
    ended = cli("total_steps=32", "run_dir=run", *words)
    assert ended.code == 1 and ended.err.count("\n") == 1, ended.err
    assert ended.err.startswith("error: data.replay_dir=re play/rank0: write failed (No space left on device) before")


def test_a_record_that_cannot_be_written_at_the_end(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = RunRecord.write

    def full(self, **changes: object) -> None:
        if changes.get("status") == "done":
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(self.path))
        write(self, **changes)

    with monkeypatch.context() as patch:
        patch.setattr(RunRecord, "write", full)
        ended = cli("total_steps=32", "run_dir=run")
    assert ended.code == 1 and ended.err.count("\n") == 1 and "run.json: Disk quota exceeded" in ended.err
    assert cli("checkpoint=auto", "run_dir=run", tiny=[]).code == 0
    assert record(tmp_path / "run")["status"] == "done" and last(tmp_path / "run")["global_step"] == 4


def test_trackers_curves_and_films_end_no_run(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(TensorBoardLogger, "finalize", full)
    monkeypatch.setattr(training_run, "draw_curve", training_run.draw_curve)
    monkeypatch.setattr("worldmodel.analysis.video.encode_mp4", full)
    real = training_run.learning_curve
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    assert real is training_run.learning_curve
    ended = cli("total_steps=32", "run_dir=run", "logger=tensorboard", "video=true", plot=True)
    assert ended.code == 0, ended.err
    lines = ended.err.splitlines()
    assert lines == [
        "warning: logger TensorBoardLogger: OSError: [Errno 28] No space left on device",
        "warning: run/learning_curve.png is not drawn (OSError: [Errno 28] No space left on device)",
    ]
    found = record(tmp_path / "run")
    assert found["status"] == "done" and found["video"].startswith("none: OSError: [Errno 28]")
    assert (tmp_path / "run" / "DONE").exists() and not list((tmp_path / "run").rglob("*.part"))


def test_a_tracker_warns_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(TensorBoardLogger, "log_metrics", fail)
    logger = tolerant(TensorBoardLogger(str(tmp_path)))
    for step in range(3):
        logger.log_metrics({"x": 1.0}, step=step)
    assert capsys.readouterr().err == "warning: logger TensorBoardLogger: ConnectionError: no route\n"
