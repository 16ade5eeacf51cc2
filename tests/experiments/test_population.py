"""Population-based training: perturbed hyperparameters after a restore, and a population after a kill."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.runs import last, record, rows
from helpers.tiny import EASY, REPO, TINY

from worldmodel.experiments.population.command import main
from worldmodel.experiments.population.member import Plan, Start, advance, checkpoint_of, lineage
from worldmodel.experiments.population.report import write_report
from worldmodel.experiments.population.space import spread, within
from worldmodel.training.module import TrainingModule

SPACE = {"optimizer.lr": {"low": 1e-4, "high": 1e-2, "log": True}, "weights.entropy": {"low": 0.0, "high": 0.1}}
HELD = {"optimizer.part_lr.policy": "null", "optimizer.warmup": 0}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(tmp_path, tuple(TINY), seed=5, interval=64, total_steps=128, metric="loss_delta")


def test_a_perturbation_is_applied_after_the_restore(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray #62173: what is restored must not bring the old hyperparameters back."""
    used = []
    step = TrainingModule.optimizer_step

    def look(self, epoch, batch_idx, optimizer, *args, **kwargs):
        used.append({group["lr"] for group in optimizer.param_groups} | {self.agent.weights["entropy"]})
        step(self, epoch, batch_idx, optimizer, *args, **kwargs)

    monkeypatch.setattr(TrainingModule, "optimizer_step", look)
    found = advance(plan, 1, {"optimizer.lr": 1e-3, "weights.entropy": 0.01, **HELD}, Start())
    assert found["intervals"] == 1 and found["env_steps"] == 64 and np.isfinite(found["loss_delta"])
    assert len(used) == 8 and all(x == {1e-3, 0.01} for x in used)
    parent = last(plan.folder(1))
    start = Start.at(checkpoint_of(plan, 1))
    assert start == Start(checkpoint_of(plan, 1), 64, parent=1)
    used.clear()
    found = advance(plan, 0, {"optimizer.lr": 7e-3, "weights.entropy": 0.05, **HELD}, start)
    assert found["intervals"] == 2 and found["env_steps"] == 128
    assert len(used) == 8 and all(x == {7e-3, 0.05} for x in used), "from the first step on"
    child = last(plan.folder(0))
    assert {group["lr"] for group in child["optimizer_states"][0]["param_groups"]} == {7e-3}
    assert {int(s["step"]) for s in child["optimizer_states"][0]["state"].values()} == {16}, "the moments are kept"
    assert child["config"]["seed"] == 5 and record(plan.folder(1))["env_steps"] == 64
    assert torch.equal(last(plan.folder(1))["state_dict"]["agent.policy.actor.weight"],
                       parent["state_dict"]["agent.policy.actor.weight"]), "the parent is left alone"  # fmt: skip
    assert [row["env_steps"] for row in rows(plan.folder(0))] == [96, 128]


def test_an_interval_that_is_run_again_takes_the_place_of_the_killed_one(plan: Plan) -> None:
    setting = {"optimizer.lr": 1e-3, **HELD}
    advance(plan, 0, setting, Start())
    saved = plan.out / "saved.ckpt"
    saved.write_bytes(checkpoint_of(plan, 0).read_bytes())
    ends = []
    for _ in range(2):  # the second time over the remains of the first
        advance(plan, 0, setting, Start(saved, 64, parent=0))
        ends.append(last(plan.folder(0))["state_dict"])
        assert [row["env_steps"] for row in rows(plan.folder(0))] == [32, 64, 96, 128]
        assert [row["from_steps"] for row in lineage(plan.folder(0) / "lineage.csv")] == ["0", "64"]
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=0, equal_nan=True)


def test_first_settings_cover_the_space() -> None:
    space = SPACE | {"data.epochs": {"low": 1, "high": 8}, "memory": {"choices": ["gru", "mlp"]}}
    found = spread(space, 4, seed=0)
    parts = sorted(int(np.log10(x["optimizer.lr"] / 1e-4) / 2 * 4) for x in found)
    assert parts == [0, 1, 2, 3], "one in each quarter of the range"
    assert all(isinstance(x["data.epochs"], int) and 1 <= x["data.epochs"] <= 8 for x in found)
    assert sorted(x["memory"] for x in found) == ["gru", "gru", "mlp", "mlp"]
    assert found == spread(space, 4, seed=0) != spread(space, 4, seed=1)
    wild = {"optimizer.lr": 0.0125, "weights.entropy": -1.0, "data.epochs": 9, "memory": "gru"}
    assert within(space, wild) == {"optimizer.lr": 1e-2, "weights.entropy": 0.0, "data.epochs": 8, "memory": "gru"}


def test_the_report(tmp_path: Path) -> None:
    plan = Plan(tmp_path, ("a=b",), seed=0, interval=100, total_steps=200, metric="return_ext")
    header = "member,interval,from_steps,to_steps,parent,return_ext,optimizer.lr,weights.entropy\n"
    for member, second in ((0, "0,2,100,200,0,1.0,0.001,0.0"), (1, "1,2,100,200,0,0.5,0.002,0.0")):
        folder = plan.folder(member)
        folder.mkdir(parents=True)
        (folder / "lineage.csv").write_text(f"{header}{member},1,0,100,,0.25,0.001,0.0\n{second}\n")
        end = 1.0 - member / 2
        (folder / "metrics.csv").write_text(f"env_steps,return_ext\n100,{end}\n200,{end}\n")
    table = write_report(plan, SPACE, 2, [plan.folder(1)])
    assert [row[:3] for row in table.rows] == [
        ["member 0", "1.000", "0.500"], ["member 1", "0.500", "0.250"], ["fixed 0", "0.500", "0.250"],
    ]  # fmt: skip
    assert table.rows[1][3] == "0.002" and table.rows[2][3] == "0.001", "fixed: the first hyperparameters"
    assert "1 from 0 at 100." in (tmp_path / "table.md").read_text()
    with (tmp_path / "lineage.csv").open(newline="") as file:
        assert [r["member"] + r["interval"] for r in csv.DictReader(file)] == ["01", "11", "02", "12"]
    assert (tmp_path / "plot.png").stat().st_size > 1000


BAD = {
    "members=1": "members=1: allowed are whole numbers from 2",
    "quantile=0.7": "quantile=0.7: allowed are numbers above 0 to 0.5",
    "interval=10": "interval=10: allowed is from an update, 2048, to total_steps=100000",
    "space=[{key: a, low: 2, high: 1}]": "space={'key': 'a', 'low': 2, 'high': 1}: allowed are key with low, high and",
    "space=[{key: optimizer.foo, low: 1, high: 2}]": "overrides: optimizer.foo: no such key, allowed are",
    "+foo=1": "foo=1: no such key, allowed are out, overrides, space, members",
}


@pytest.mark.parametrize("argument", BAD)
def test_bad_input(cli, argument: str, tmp_path: Path) -> None:
    ended = cli(f"out={tmp_path / 'none'}", argument, tiny=[], main=main)
    assert ended.code == 2 and ended.err.startswith(f"error: {BAD[argument]}") and ended.err.count("\n") == 1, ended.err
    assert not (tmp_path / "none").exists()


def test_after_a_restart_the_scheduler_knows_where_each_member_is() -> None:
    tuner = pytest.importorskip(
        "worldmodel.experiments.population.tuner", reason="ray is not installed", exc_type=ImportError
    )
    scheduler = tuner.Synchronous(
        time_attr="intervals", metric="m", mode="max", perturbation_interval=1, synch=True,
        hyperparam_mutations={"a": [1, 2]},
    )  # fmt: skip
    manager = SimpleNamespace(checkpoint_manager=SimpleNamespace(checkpoint_config=SimpleNamespace(num_to_keep=3)))
    results = [{"intervals": 3, "m": 0.5}, {"intervals": 2, "m": 0.75}]
    trials = [SimpleNamespace(last_result=x, config={"a": 1}, run_metadata=manager, experiment_tag="") for x in results]
    trials = [type("Trial", (), vars(x))() for x in trials]
    for trial in trials:
        trial.status, trial.is_finished = "PENDING", lambda: False
        trial.set_status = lambda status, trial=trial: setattr(trial, "status", status)
        scheduler.on_trial_add(SimpleNamespace(search_alg=None), trial)
    controller = SimpleNamespace(get_trials=lambda: trials)
    assert scheduler.choose_trial_to_run(controller) is trials[1], "the other one has finished this interval"
    assert [trial.status for trial in trials] == ["PAUSED", "PAUSED"], "pending ones would be started at once"
    assert scheduler.last_scores(trials) == [0.5, 0.75]
    assert tuner.number("1a2b3_00012") == 12


@pytest.mark.slow
def test_a_population_survives_a_kill(tmp_path: Path) -> None:
    """Two workers of a local cluster, three members."""
    pytest.importorskip("ray", reason="ray is not installed")
    overrides = ",".join(f"'{x}'" for x in [*TINY, *EASY])
    command = [sys.executable, "-m", "worldmodel.population", f"out={tmp_path / 'out'}", f"overrides=[{overrides}]",
               "members=3", "interval=64", "total_steps=384", "jobs=2", "metric=rew_int"]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=REPO, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    for line in process.stdout:
        if line.startswith("member 1: 128"):  # in the midst of the second interval
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    time.sleep(2)  # the cluster notices
    ended = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert "64 steps" not in [x.split(": ")[-1][:8] for x in ended.stdout.splitlines()], "it begins not anew"
    with (tmp_path / "out" / "lineage.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [(int(r["interval"]), int(r["member"])) for r in found] == [(i, m) for i in range(1, 7) for m in range(3)]
    copies = [r for r in found if r["parent"] not in ("", r["member"])]
    assert copies
    for row in found:
        saved = tmp_path / "out" / "members" / row["member"] / "config.yaml"
        assert saved.exists() and float(row["optimizer.lr"]) > 0
    for member in range(3):
        state = last(tmp_path / "out" / "members" / str(member))
        final = [r for r in found if int(r["member"]) == member][-1]
        rates = {g["lr"] for g in state["optimizer_states"][0]["param_groups"]}
        warm = min(1.0, (state["global_step"] + 1) / 50)
        expected = {float(final[f"optimizer.{x}"]) * warm for x in ("lr", "part_lr.policy")}
        assert sorted(rates) == pytest.approx(sorted(expected))
    again = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0 and "member 0:" not in again.stdout, "nothing is left to do"
    assert json.loads((tmp_path / "out" / "plan.json").read_text())["members"] == 3
