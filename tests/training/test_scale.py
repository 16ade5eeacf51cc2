"""Precisions, gradient accumulation, several processes and repeated sweeps: the results of one plain run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.runs import last, record, rows
from helpers.tiny import EASY, REPO, TINY

from worldmodel import train

# the losses of one set of weights
STILL = [
    "optimizer.lr=1e-9",
    "optimizer.part_lr.policy=null",
    "optimizer.warmup=0",
    *EASY,
]
HALF = [x for x in TINY if x.split("=")[0] not in ("env.num_envs", "data.minibatches")]
TWO = [*HALF, *EASY, "env.num_envs=2", "data.minibatches=2", "trainer.accelerator=cpu", "total_steps=96"]


@pytest.mark.parametrize(
    ("change", "tolerance"),
    [
        ("trainer.precision=bf16-mixed", 0.03),
        ("trainer.accumulate_grad_batches=2", 1e-4),
        pytest.param("compile=true", 1e-4, marks=pytest.mark.slow),
    ],
)
def test_the_loss_is_the_same(cli, tmp_path: Path, change: str, tolerance: float) -> None:
    if change == "compile=true" and not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("torch.compile needs a C++ compiler")
    for run, words in (("plain", []), ("changed", [change])):
        ended = cli("total_steps=32", f"run_dir={run}", *STILL, *words)
        assert ended.code == 0, ended.err
    plain, changed = (rows(tmp_path / run)[0] for run in ("plain", "changed"))
    for key in ("loss_delta", "loss_value", "loss_end", "entropy"):
        assert changed[key] == pytest.approx(plain[key], rel=tolerance, abs=1e-4), key
    steps, plain_steps = (last(tmp_path / run)["global_step"] for run in ("changed", "plain"))
    assert steps == (plain_steps // 2 if "accumulate" in change else plain_steps) > 0
    names = [last(tmp_path / run)["state_dict"].keys() for run in ("plain", "changed")]
    assert names[0] == names[1], "every way to train writes the same names"


def test_a_repeated_sweep_continues(cli, tmp_path: Path) -> None:
    """Finished runs are left unchanged, interrupted ones continue, missing ones start."""
    sweep = ["-m", "experiment=doorkey", "run_dir=sweep/seed${seed}", "checkpoint=auto", *EASY]
    assert cli(*sweep, "seed=0", "total_steps=64").code == 0
    assert cli(*sweep, "seed=1", "total_steps=32").code == 0  # as if killed there
    done = {p: p.stat().st_mtime_ns for p in (tmp_path / "sweep" / "seed0").rglob("*") if p.is_file()}
    text = (tmp_path / "sweep" / "seed1" / "run.json").read_text()
    (tmp_path / "sweep" / "seed1" / "run.json").write_text(text.replace('"done"', '"running"'))
    ended = cli(*sweep, "seed=0,1,2", "total_steps=64")
    assert ended.code == 0 and ended.err == "" and "done before: 84 steps" in ended.out
    assert done == {p: p.stat().st_mtime_ns for p in (tmp_path / "sweep" / "seed0").rglob("*") if p.is_file()}
    for seed in range(3):
        run = tmp_path / "sweep" / f"seed{seed}"
        assert [row["env_steps"] for row in rows(run)] == [28, 56, 84] and record(run)["status"] == "done"
        assert record(run)["seed"] == seed and (run / "DONE").exists()


def test_launchers_can_pickle_the_command() -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    assert callable(cloudpickle.loads(cloudpickle.dumps(train._main.__wrapped__)))


def run(*command: str, cwd: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, "-m", *command], cwd=cwd, env=environment, capture_output=True, text=True,
                           timeout=400)  # fmt: skip
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes under DDP, the reference for the others."""
    folder = tmp_path_factory.mktemp("ranks") / "ddp"
    run("worldmodel.train", *TWO, f"run_dir={folder}", "trainer.devices=2", cwd=folder.parent)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("way", ["torchrun", "ray", "sharded"])
def test_other_ways_to_run_two_ranks(two_ranks: Path, tmp_path: Path, way: str) -> None:
    mine = tmp_path / way
    if way == "torchrun":
        launch = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "worldmodel.train"]
        words = ["trainer.devices=2"]
    elif way == "ray":
        pytest.importorskip("ray", reason="ray is not installed")
        launch, words = ["worldmodel.training.ray"], ["cluster.workers=2"]
    else:
        launch = ["worldmodel.train"]
        words = ["trainer=sharded", "trainer.devices=2", "trainer.strategy.data_parallel_size=2"]
    run(*launch, *TWO, *words, f"run_dir={mine}", cwd=tmp_path)
    assert record(mine)["status"] == "done" and [r["env_steps"] for r in rows(mine)] == [32, 64, 96]
    ours, theirs = last(mine)["state_dict"], last(two_ranks)["state_dict"]
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert type(ours[name]) is torch.Tensor, name
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-4, equal_nan=True, msg=name)
    again = ["checkpoint=auto", "total_steps=128", f"run_dir={mine}"]
    if way == "sharded":  # continues from its one file
        run("worldmodel.train", *again, cwd=tmp_path)
        assert rows(mine)[-1]["env_steps"] == 128
