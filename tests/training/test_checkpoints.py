"""Checkpoint files: atomic writes, the newest valid one, full disks, rollbacks and signals."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from helpers.full_disk import full_disk
from helpers.runs import STEPS, check_whole, last, record, rows
from helpers.tiny import EASY, tiny_config

from worldmodel.errors import ConfigError
from worldmodel.files import alias, atomic_write
from worldmodel.interruption import Interrupted, interruptible
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.measure.reliability.malformed import Bomb, Evaluated
from worldmodel.training.build import build_data
from worldmodel.training.callbacks import Checkpoints, Metrics
from worldmodel.training.callbacks.signals import StopOnSignal
from worldmodel.training.checkpoint import FORMAT, SealedFiles, newest_checkpoint, read_checkpoint
from worldmodel.training.datamodule import SequenceData
from worldmodel.training.module import TrainingModule


def test_a_file_is_whole_or_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_write(path, lambda file: file.write(b"old"))

    def fail(file) -> None:
        file.write(b"new")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        atomic_write(path, fail)
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("links", [True, False])
def test_alias(tmp_path: Path, monkeypatch, links: bool) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    if not links:
        monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links here")))
    alias(one, two)
    atomic_write(one, lambda file: file.write(b"new"))
    assert two.read_bytes() == b"1" and len(list(tmp_path.iterdir())) == 2


def test_damage_is_detected_with_and_without_a_seal(tmp_path: Path) -> None:
    content = {"state_dict": {"w": torch.arange(1000)}, "config": {}, "format": FORMAT}
    sealed, plain = tmp_path / "sealed.ckpt", tmp_path / "plain.ckpt"
    SealedFiles().save_checkpoint(content, sealed)
    torch.save(content, plain)
    for path in (sealed, plain):
        assert torch.equal(read_checkpoint(path)["state_dict"]["w"], torch.arange(1000))
        assert torch.load(path, weights_only=True)["config"] == {}  # torch alone can read it
        data = bytearray(path.read_bytes())
        data[data.index(torch.arange(100, 110).numpy().tobytes())] ^= 1
        path.write_bytes(data)
        with pytest.raises(ConfigError, match=r"not readable \(damaged"):
            read_checkpoint(path)


def test_the_malicious_files_of_the_corpus_would_execute(tmp_path: Path) -> None:
    for bomb in (Bomb, Evaluated):
        marker = tmp_path / bomb.__name__
        torch.save(bomb(marker), tmp_path / "bomb")
        torch.load(tmp_path / "bomb", weights_only=False)
        assert marker.exists()


def test_the_newest_valid_checkpoint_is_resumed(cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert cli("total_steps=128", f"run_dir={run}", "save.every=1", *EASY).code == 0
    folder = run / "checkpoints"
    assert {p.name for p in folder.iterdir()} == {"last.ckpt", "previous.ckpt", "best.ckpt"}
    assert (run / "DONE").read_text() == f"{record(run)['env_steps']}\n"
    updates = len(rows(run))
    found = [read_checkpoint(folder / f"{name}.ckpt")["global_step"] for name in ("last", "previous")]
    assert found == [4 * updates, 4 * updates - 4]
    (folder / "last.ckpt").write_bytes((folder / "last.ckpt").read_bytes()[:-100])
    ended = cli("checkpoint=auto", f"run_dir={run}", "total_steps=256", tiny=[])
    assert ended.code == 0 and ended.err.startswith(f"warning: checkpoint={folder}/last.ckpt: not readable (damaged")
    check_whole(run, 256)
    for name in ("last", "previous"):
        (folder / f"{name}.ckpt").write_bytes(b"")
    ended = cli("checkpoint=auto", f"run_dir={run}", "total_steps=512", tiny=[])
    assert ended.code == 2 and ended.err.splitlines()[-1].startswith(f"error: checkpoint={folder}/previous.ckpt: not r")
    assert newest_checkpoint(tmp_path) is None


def test_saves_by_time_and_by_updates(cli, tmp_path: Path, monkeypatch) -> None:
    saved = []
    write = SealedFiles.save_checkpoint
    monkeypatch.setattr(
        SealedFiles,
        "save_checkpoint",
        lambda self, c, *a, **k: (saved.append(c["global_step"]), write(self, c, *a, **k)),
    )
    assert cli("total_steps=160", "save.every=3").code == 0
    assert saved == [12, 20]
    saved.clear()
    assert cli("total_steps=96", "save.every_s=1e-9", "run_dir=b").code == 0
    assert saved == [4, 8, 12]
    assert cli("total_steps=32", "save.every=0").err == "error: save.every=0: allowed are numbers above 0\n"


@pytest.fixture
def full_at(monkeypatch):
    """The disk is full at these saves, counted from one."""

    def install(*numbers: int) -> None:
        write, calls = Checkpoints._write, []

        def _write(self, *args, **kwargs):
            calls.append(None)
            if len(calls) in numbers:
                with full_disk():
                    return write(self, *args, **kwargs)
            return write(self, *args, **kwargs)

        monkeypatch.setattr(Checkpoints, "_write", _write)

    return install


def test_training_continues_while_the_disk_is_full(cli, tmp_path: Path, full_at, monkeypatch) -> None:
    full_at(2, 3)
    run, seen = tmp_path / "run", []
    save = Checkpoints.save
    monkeypatch.setattr(
        Checkpoints, "save", lambda self, t, **k: (save(self, t, **k), seen.append(last(run)["global_step"]))
    )
    ended = cli("total_steps=128", f"run_dir={run}", "save.every=1")
    assert ended.code == 0 and seen == [4, 4, 4, 16]
    assert ended.err.splitlines() == [
        f"warning: no checkpoint could be written at env_steps={steps} (File too large); the earlier ones are intact"
        for steps in (64, 96)
    ]
    assert read_checkpoint(run / "checkpoints" / "previous.ckpt")["global_step"] == 4
    check_whole(run, 128)
    assert not list(run.rglob("*.part"))


def test_a_run_fails_whose_last_checkpoint_cannot_be_written(cli, tmp_path: Path, full_at) -> None:
    full_at(3, 4)
    run = tmp_path / "run"
    ended = cli("total_steps=96", f"run_dir={run}", "save.every=1")
    assert ended.code == 1 and "no checkpoint could be written at env_steps=96" in ended.err.splitlines()[-1]
    assert record(run)["status"] == "failed" and last(run)["global_step"] == 8 and not (run / "DONE").exists()


def test_rows_are_written_once_there_is_space(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, build_data(tiny_config()).stream)
    metrics.unwritten = [["env_steps", "b"], [1.0, 2.0]]
    metrics._write()
    metrics.unwritten.append([3.0, "0." + "1" * 2000])
    with full_disk(), pytest.raises(OSError):
        metrics._write()
    assert metrics.path.read_bytes() == b"env_steps,b\r\n1.0,2.0\r\n"
    metrics.unwritten.append([4.0, 5.0])
    metrics._write()
    assert [row["env_steps"] for row in metrics.read()] == ["1.0", "3.0", "4.0"]
    with metrics.path.open("a") as file:
        file.write("7.0,8")  # of 8.5, when the process was killed
    assert len(metrics.read()) == 3


def test_a_run_killed_after_its_last_checkpoint_is_concluded(cli, tmp_path: Path, monkeypatch) -> None:
    run = tmp_path / "run"
    assert cli("total_steps=64", f"run_dir={run}").code == 0
    (run / "DONE").unlink()
    unfinished = record(run) | {"status": "running", "env_steps": 0}
    (run / "run.json").write_text(json.dumps(unfinished))
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    assert cli("checkpoint=auto", f"run_dir={run}", tiny=[])[::2] == (0, "")
    assert record(run)["status"] == "done" and record(run)["env_steps"] == 64 and (run / "DONE").exists()
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == before and len(rows(run)) == 2


def test_the_marker_of_a_finished_run_is_removed_when_it_continues(cli, tmp_path: Path, monkeypatch) -> None:
    run = tmp_path / "run"
    assert cli("total_steps=64", f"run_dir={run}").code == 0 and (run / "DONE").exists()
    monkeypatch.setattr(CuriousAgent, "score", lambda *_: os.kill(os.getpid(), signal.SIGTERM) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli("checkpoint=auto", f"run_dir={run}", "total_steps=128", tiny=[])
    assert not (run / "DONE").exists()


@pytest.mark.parametrize("loss", ["nan", "huge"])
def test_a_broken_loss_rolls_back_with_smaller_rates(cli, tmp_path: Path, monkeypatch, loss: str) -> None:
    """It breaks twice in the third update, the second time after a rollback to the second update."""
    run, step, broken = tmp_path / "run", TrainingModule.training_step, []

    def training_step(self, batch, index):
        outputs = step(self, batch, index)
        if len(broken) < 2 and self.env_steps > 2 * STEPS:
            broken.append(self.trainer.optimizers[0].param_groups[0]["lr"])
            # as if it had been found in the step before
            self.max_loss = 0.0 if loss == "huge" else self.max_loss
            if loss == "nan":
                batch.policy.ret_ext.fill_(float("nan"))
            return step(self, batch, index)
        return outputs

    monkeypatch.setattr(TrainingModule, "training_step", training_step)
    ended = cli("total_steps=128", f"run_dir={run}", "save.every=2", "rollback=halve", "optimizer.lr=1e-3", *EASY)
    assert ended.code == 0, ended.err
    lines = ended.err.splitlines()
    assert len(lines) == 2 and all(f"going back to {run}/checkpoints/last.ckpt" in line for line in lines)
    assert lines[0].endswith("optimizer.lr=0.0005") and lines[1].endswith("optimizer.lr=0.00025")
    check_whole(run, 128)
    assert last(run)["config"]["optimizer"]["lr"] == 2.5e-4
    assert {g["initial_lr"] for g in last(run)["optimizer_states"][0]["param_groups"]} == {2.5e-4}


def test_bad_rollback_settings(cli) -> None:
    for bad in ("rollback.times=-1", "rollback.factor=1.0", "rollback.max_loss=0"):
        ended = cli("total_steps=32", bad)
        assert ended.code == 2 and ended.err.startswith(f"error: {bad}: allowed ")


def test_a_signal_before_the_first_update(cli, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(SequenceData, "setup", lambda *_, **__: os.kill(os.getpid(), signal.SIGUSR1))
    assert cli("total_steps=32", "run_dir=run")[::2] == (130, ""), "nothing to resume"
    assert cli("total_steps=32", "run_dir=run", "checkpoint=auto")[::2] == (75, ""), "the same command goes on"
    assert record(tmp_path / "run")["status"] == "stopped" and signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_the_handler_of_the_launcher_runs_after_the_save(cli, tmp_path: Path, monkeypatch) -> None:
    """The handler of submitit requeues the job."""
    seen, score = [], CuriousAgent.score

    def signalled(self, *args):
        if int(self.env_steps) == STEPS:
            os.kill(os.getpid(), signal.SIGUSR2)
        return score(self, *args)

    monkeypatch.setattr(CuriousAgent, "score", signalled)
    before = signal.signal(signal.SIGUSR2, lambda *_: seen.append(last(tmp_path / "run")["global_step"]))
    try:
        assert cli("total_steps=128", "run_dir=run").code == 75
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert seen == [8] and record(tmp_path / "run")["status"] == "stopped"


def test_handlers_are_restored() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    with pytest.raises(Interrupted, match="SIGTERM"), interruptible():
        signal.raise_signal(signal.SIGTERM)
    assert {number: signal.getsignal(number) for number in before} == before
    StopOnSignal().pass_on()  # nothing was received
