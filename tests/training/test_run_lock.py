"""A run folder has one owner: locks, heartbeats, and what a new run may overwrite."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.runs import STEPS, check_whole, last, record, rows

from worldmodel.errors import ConfigError
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.training import run_lock
from worldmodel.training.run_lock import NAME, STALE_S, RunLock, ended, here, owned

NOW = 1_000_000.0


def write_lock(folder: Path, **changes: object) -> dict:
    """A lock's file of another process, whose heartbeat is new."""
    about = {**here(), "began": time.time(), "heartbeat": time.time(), "token": "other"} | changes
    (folder / NAME).write_text(json.dumps(about))
    return about


@pytest.fixture
def dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def hold(folder: Path, pipe) -> None:
    lock = RunLock(folder)
    pipe.send(os.getpid())
    pipe.recv()
    lock.release()


def test_a_folder_has_one_owner_at_a_time(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    other = context.Process(target=hold, args=(tmp_path, theirs))
    other.start()
    try:
        pid = ours.recv()
        with pytest.raises(ConfigError, match=rf"^run_dir={tmp_path}: in use by process {pid} on ") as refused:
            RunLock(tmp_path)
        assert "\n" not in str(refused.value)
        ours.send("end")
        other.join(10)
        assert not (tmp_path / NAME).exists(), "an owner removes its file"
        RunLock(tmp_path).release()
    finally:
        other.kill()


def test_a_killed_owner_leaves_the_folder_free(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    other = context.Process(target=hold, args=(tmp_path, theirs))
    other.start()
    ours.recv()
    other.kill()
    other.join(10)
    assert (tmp_path / NAME).exists()
    lock = RunLock(tmp_path)
    assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
    lock.release()


def test_when_an_owner_has_ended(dead_pid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    own = here() | {"heartbeat": NOW}
    assert not ended(own, NOW + 1), "this process is alive"
    assert ended(own | {"pid": dead_pid}, NOW + 1)
    assert not ended(own | {"pid": dead_pid, "pids": 1}, NOW + 1), "a process id of another container"
    elsewhere = own | {"host": "another", "pid": dead_pid, "job": "7"}
    assert not ended(elsewhere, NOW + STALE_S) and ended(elsewhere, NOW + STALE_S + 1)
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    assert not ended(elsewhere, NOW + 1)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert ended(elsewhere, NOW + 1), "requeued on another host"
    assert not ended(own | {"job": "7"}, NOW + 1), "a live process of this job"


def test_a_held_lock_of_an_ended_owner_is_replaced(tmp_path: Path, dead_pid: int) -> None:
    """For example the lock of a child that outlives the owner."""
    write_lock(tmp_path, pid=dead_pid)
    with (tmp_path / NAME).open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        lock = RunLock(tmp_path)
        assert not lock.lost and {p.name for p in tmp_path.iterdir()} == {NAME}
        with pytest.raises(ConfigError, match=f"in use by process {os.getpid()} "):
            RunLock(tmp_path)
        lock.release()
    assert not list(tmp_path.iterdir())


def test_without_locks_the_heartbeat_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead_pid: int) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(run_lock.fcntl, "flock", no_locks)
    write_lock(tmp_path, host="another")
    with pytest.raises(ConfigError, match=r"in use by process .* on another since "):
        RunLock(tmp_path)
    for free in ({"host": "another", "heartbeat": time.time() - STALE_S - 1}, {"pid": dead_pid}):
        write_lock(tmp_path, **free)
        RunLock(tmp_path).release()
    (tmp_path / NAME).write_bytes(b"\0\0{")
    RunLock(tmp_path).release()
    assert not list(tmp_path.iterdir())


def test_the_heartbeat_goes_on_and_notices_another_owner(tmp_path: Path) -> None:
    lock = RunLock(tmp_path, heartbeat_s=0.02)
    first = json.loads((tmp_path / NAME).read_text())
    time.sleep(0.2)
    second = json.loads((tmp_path / NAME).read_text())
    assert second["heartbeat"] > first["heartbeat"] and second["began"] == first["began"]
    (tmp_path / NAME).unlink()
    write_lock(tmp_path)
    assert lock.lost
    lock.release()
    assert (tmp_path / NAME).exists(), "the other owner's file stays"


def test_only_the_first_rank_owns_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("RANK", "2")
    with owned(tmp_path) as lock:
        assert lock is None and not list(tmp_path.iterdir())


def test_an_unwritable_folder(cli) -> None:
    ended = cli("run_dir=/proc/self", "total_steps=32")
    assert ended.code == 2 and ended.err.startswith("error: run_dir=/proc/self: not writable (")
    assert ended.err.count("\n") == 1


def test_a_run_in_use_is_refused_and_goes_on(cli, tiny_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    lock = RunLock(run)
    for words in (["checkpoint=auto"], [], ["overwrite=true"]):
        ended = cli("total_steps=32", f"run_dir={run}", *words)
        assert ended.code == 2 and ended.err.startswith(f"error: run_dir={run}: in use by process {os.getpid()} on ")
    assert [p.name for p in run.iterdir()] == [NAME]
    lock.release()


def test_a_taken_folder_is_not_written_to(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, score = tmp_path / "run", CuriousAgent.score

    def taken(self, *args):
        if int(self.env_steps) == 2 * STEPS:
            (run / NAME).unlink()
            write_lock(run)
            (run / "run.json").write_text("of the other run")
        return score(self, *args)

    monkeypatch.setattr(CuriousAgent, "score", taken)
    ended = cli("total_steps=256", f"run_dir={run}")
    assert ended.code == 2
    assert ended.err == f"error: run_dir={run}: taken by another process while this one was suspended\n"
    assert (run / "run.json").read_text() == "of the other run" and len(rows(run)) == 2


def test_a_new_run_in_the_folder_of_another(cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert cli("total_steps=64", "run_dir=run").code == 0
    (run / "notes.txt").write_text("mine")
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    allowed = "allowed are checkpoint=auto (resumes it), overwrite=true (removes it) and another folder"
    ended = cli("total_steps=32", "run_dir=run")
    assert ended.code == 2 and ended.err == f"error: run_dir=run: holds a run, {allowed}\n"
    assert cli("total_steps=32", "run_dir=run", "overwrite=true", "data.minibatches=3").code == 2, "bad input"
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before
    # a checkpoint of this folder is the same run, one of another folder is not
    assert cli("checkpoint=run/checkpoints/last.ckpt", "run_dir=other", "total_steps=96", tiny=[]).code == 0
    assert cli("checkpoint=run/checkpoints/last.ckpt", "run_dir=other", "total_steps=128", tiny=[]).code == 2
    assert cli("checkpoint=auto", "run_dir=run", "overwrite=true", "total_steps=96", tiny=[]).code == 0
    assert len(rows(run)) == 3, "a run that goes on is not overwritten"
    assert last(run)["config"]["overwrite"] is False
    # overwritten
    assert cli("total_steps=32", "run_dir=run", "overwrite=true", "seed=3").code == 0
    check_whole(run, 1)
    assert record(run)["seed"] == 3 and (run / "notes.txt").read_text() == "mine"
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["last.ckpt"]


def test_auto_without_a_checkpoint_needs_the_same_configuration(cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert cli("total_steps=32", "run_dir=run").code == 0
    (run / "checkpoints" / "last.ckpt").unlink()  # as if killed before the first one
    ended = cli("total_steps=32", "run_dir=run", "checkpoint=auto", "optimizer.lr=0.5", "seed=1")
    assert ended.code == 2
    assert (
        "run_dir=run: holds a run with another env.seed, optimizer.lr, seed and no checkpoint, allowed are overwrite"
        in ended.err
    )
    assert cli("total_steps=32", "run_dir=run", "checkpoint=auto", "save.every=5").code == 0
    check_whole(run, 1)


def test_a_sweep_needs_a_folder_for_each_job(cli, tmp_path: Path) -> None:
    for bad in (["seed=0,1", "run_dir=run"], ["seed=0,1", "memory.dim=16,8", "run_dir=run${seed}"],
                ["seed=0,1", "run_dir=a,b"]):  # fmt: skip
        ended = cli("-m", "total_steps=32", *bad)
        assert ended.code == 2 and "jobs of a sweep share it, allowed is a folder each" in ended.err, bad
        assert ended.err.count("\n") == 1 and not list(tmp_path.iterdir())
    assert cli("-m", "total_steps=32", "seed=0,1", "run_dir=a b/${seed}").code == 0
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.glob("*/*/run.json")) == [
        "a b/0/run.json",
        "a b/1/run.json",
    ]
