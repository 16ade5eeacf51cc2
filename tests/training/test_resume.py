"""Interrupted runs: signals, errors, losses that are not finite, and bitwise resume."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers.runs import TIMED, check_whole, last, record, rows
from helpers.tiny import EASY, REPO, TINY

from worldmodel.interruption import SIGNALS
from worldmodel.training.module import TrainingModule

KEPT = [
    ["env=cartpole", "env.engine=gymnasium", "encoder=mlp"],
    [
        *("env.id=MiniGrid-DoorKey-5x5-v0", "env.engine=gymnasium", "env.vectorization=async"),
        *("+env.max_episode_steps=20", "env.num_envs=2", "data.minibatches=2", "data.rollout_length=16"),
    ],
    ["env=cartpole", "env.engine=gymnasium", "encoder=mlp", "data.repeat_limit=60"],  # truncates after 15 steps
    ["+env.max_episode_steps=20"],  # the shipped default, whose engine cannot save its state
    ["+env.max_episode_steps=6", "data.repeat_limit=80"],  # new environments after every second update
]


@pytest.fixture
def at_batch(monkeypatch):
    """A function that calls `act` before the n-th minibatch."""

    def install(number: int, act) -> None:
        step, calls = TrainingModule.training_step, []

        def training_step(self, batch, batch_idx):
            calls.append(batch_idx)
            if len(calls) == number:
                act()
            return step(self, batch, batch_idx)

        monkeypatch.setattr(TrainingModule, "training_step", training_step)

    return install


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_the_run_after_its_update(cli, tmp_path: Path, at_batch, number: int) -> None:
    run = tmp_path / "run"
    handler = signal.getsignal(number)
    at_batch(10, lambda: os.kill(os.getpid(), number))  # within the third update
    ended = cli("total_steps=256", f"run_dir={run}", *EASY, plot=True)
    assert ended.code == 75 and ended.err == ""
    stopped = record(run)
    assert stopped["status"] == "stopped" and stopped["signal"] == signal.Signals(number).name
    assert stopped["env_steps"] == rows(run)[-1]["env_steps"] and len(rows(run)) == 3
    assert (run / "learning_curve.png").exists() and signal.getsignal(number) == handler
    assert cli("checkpoint=auto", f"run_dir={run}", tiny=[]).code == 0
    check_whole(run, 256)
    assert record(run)["wall_s"] > stopped["wall_s"] and record(run)["signal"] is None


def test_a_signal_in_the_last_update_changes_nothing(cli, tmp_path: Path, at_batch) -> None:
    at_batch(7, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert cli("total_steps=64", "run_dir=run").code == 0
    assert record(tmp_path / "run")["status"] == "done"


def test_an_error_is_recorded_and_the_run_continues_from_its_last_checkpoint(cli, tmp_path: Path, at_batch) -> None:
    def fail() -> None:
        raise OSError("no space left\non this device")

    at_batch(14, fail)  # in the fourth update; the checkpoint is of the second
    with pytest.raises(OSError, match="no space"):
        cli("total_steps=256", "run_dir=run", "save.every=2", *EASY)
    run = tmp_path / "run"
    failed = record(run)
    assert failed["status"] == "failed" and failed["error"] == "OSError: no space left"
    assert failed["env_steps"] == rows(run)[-1]["env_steps"] and len(rows(run)) == 3
    with (run / "metrics.csv").open("a") as file:
        file.write("128,0.7,1")  # half a row
    assert cli("checkpoint=auto", "run_dir=run", tiny=[]).code == 0
    check_whole(run, 256)
    assert "error" not in record(run)


def test_a_loss_that_is_not_finite_leaves_the_last_checkpoint(cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert cli("total_steps=64", f"run_dir={run}").code == 0
    good = (run / "checkpoints" / "last.ckpt").read_bytes()
    ended = cli("checkpoint=auto", f"run_dir={run}", "total_steps=256", "optimizer.lr=1e30", tiny=[])
    assert ended.code == 2
    assert ended.err.startswith("error: loss is not finite at env_steps=96: ") and ended.err.count("\n") == 1
    assert record(run)["status"] == "failed" and record(run)["error"].startswith("NonFiniteLoss: loss is not finite")
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == good
    assert not list(run.rglob("*.part"))


def test_weights_that_are_not_finite_are_not_saved(cli, tmp_path: Path, monkeypatch) -> None:
    report = TrainingModule.report

    def spoil(self):
        with torch.no_grad():
            self.agent.policy.actor.bias[0] = torch.inf
        return report(self)

    monkeypatch.setattr(TrainingModule, "report", spoil)
    ended = cli("total_steps=32", "run_dir=run")
    assert ended.code == 2 and ended.err == "error: weights are not finite at env_steps=32\n"
    assert not list((tmp_path / "run").rglob("*.ckpt"))


def test_settings_can_change_when_a_run_continues(cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert cli("total_steps=64", f"run_dir={run}", *EASY).code == 0
    checkpoint = f"checkpoint={run}/checkpoints/last.ckpt"
    changes = ["optimizer.lr=3e-3", "optimizer.part_lr.policy=1e-5", "optimizer.warmup=0", "data.context=2", "seed=5"]
    elsewhere = tmp_path / "elsewhere"
    ended = cli(checkpoint, *changes, "total_steps=128", f"run_dir={elsewhere}", "logger=tensorboard", tiny=[])
    assert ended.code == 0, ended.err
    steps = [r["env_steps"] for r in rows(elsewhere)]
    assert rows(run)[-1]["env_steps"] < steps[0] and steps[-2] < 128 <= steps[-1]
    assert list((elsewhere / "tensorboard").glob("events*"))
    rates = {g["lr"] for g in last(elsewhere)["optimizer_states"][0]["param_groups"]}
    assert rates == {3e-3, 1e-5}
    assert last(elsewhere)["config"]["env"]["id"] == "MiniGrid-Empty-5x5-v0"


@pytest.mark.parametrize("environment", KEPT)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(cli, tmp_path: Path, environment: list[str]) -> None:
    overrides = ["env.sticky=0.25"]
    overrides += ["data.replay_batch=1", "data.replay_capacity=8", "target=sigreg", "trainer.accumulate_grad_batches=2"]
    overrides += environment
    runs = [tmp_path / "whole", tmp_path / "halves"]
    assert cli("total_steps=192", f"run_dir={runs[0]}", *overrides).code == 0
    assert cli("total_steps=96", f"run_dir={runs[1]}", *overrides).code == 0
    go_on = ["checkpoint=auto", "total_steps=192", f"run_dir={runs[1]}"]
    assert cli(*go_on, tiny=[])[::2] == (0, "")
    one, two = ([{k: v for k, v in row.items() if k not in TIMED} for row in rows(run)] for run in runs)
    assert str(one) == str(two) and len(one) in (6, 7) and one[-1]["length"] > 0
    records = [sorted(p.name for p in (run / "actions").iterdir()) for run in runs]
    limited = "data.repeat_limit=80" in environment
    assert records[0] == records[1] == [f"rank0_{begun}.bin" for begun in ((0, 2, 4, 6) if limited else (0,))]
    one, two = (last(run) for run in runs)
    for a, b in (
        (one["state_dict"], two["state_dict"]),
        (one["optimizer_states"], two["optimizer_states"]),
        (one["SequenceData"]["collector"], two["SequenceData"]["collector"]),
        (one["SequenceData"]["replay"], two["SequenceData"]["replay"]),
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True, msg=str)


def test_auto_starts_a_new_run_without_a_checkpoint(cli, tmp_path: Path) -> None:
    assert cli("checkpoint=auto", "run_dir=run", "total_steps=32").code == 0
    check_whole(tmp_path / "run", 32)


def test_a_finished_run_is_left_unchanged(cli, tiny_run: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in tiny_run.rglob("*") if p.is_file()}
    ended = cli("checkpoint=auto", f"run_dir={tiny_run}", tiny=[])
    assert ended.code == 0 and "256 steps" in ended.out
    assert {p: p.stat().st_mtime_ns for p in tiny_run.rglob("*") if p.is_file()} == before


def test_a_process_stops_on_a_signal(tmp_path: Path) -> None:
    """A real process, its exit code and its streams."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "worldmodel.train", *TINY, *EASY, "total_steps=1_000_000", f"run_dir={run}"]
    environment = os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, stderr=subprocess.PIPE)
    try:
        limit = time.monotonic() + 60
        while not (run / "metrics.csv").exists() or (run / "metrics.csv").read_text().count("\n") < 3:
            assert process.poll() is None and time.monotonic() < limit
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 75 and process.stderr.read() == ""
    finally:
        process.kill()
    assert record(run)["status"] == "stopped" and last(run)["global_step"] == 4 * len(rows(run))
    assert not (tmp_path / "train.log").exists()
