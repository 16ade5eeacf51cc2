"""The command line: one-line errors with exit code 2, help, sweeps and run folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.tiny import REPO, TINY

# bad arguments, and what the line must contain: the key, the value, what is allowed
BAD = {
    "foo=1": ["foo=1: no such key, allowed are ", "curiosity", "total_steps"],
    "+foo=1": ["foo=1: no such key, allowed are ", "curiosity", "total_steps"],
    "data.foo=1": ["data.foo=1: no such key, allowed are rollout_length, "],
    "+data.foo=1": ["data.foo=1: no such key, allowed are ", "rollout_length, "],
    "+env.foo=1": ["does not take", "'foo': 1"],
    "policy.actor.foo=1": ["policy.actor.foo=1: no such key, allowed are hidden, "],
    "data.rollout_length=abc": ["data.rollout_length=abc: allowed is int"],
    "data.rollout_length=0": ["data.rollout_length=0: allowed are whole numbers from 1"],
    "data.minibatches=3": ["data.minibatches=3: allowed are divisors of env.num_envs x data.rollout_length = 32"],
    "data.minibatches=[1": ["data.minibatches=[1: not readable, allowed is key=value"],
    "nonsense": ["nonsense: not readable, allowed is key=value"],
    "total_steps=x": ["total_steps=x: allowed is int"],
    "total_steps=0": ["total_steps=0: allowed are whole numbers from 1"],
    "seed=1.5": ["seed=1.5: allowed is int"],
    "seed=-1": ["seed=-1: allowed are whole numbers from 0"],
    "threads=0": ["threads=0: allowed are null and whole numbers from 1"],
    "name=null": ["name=None: allowed is str"],
    "video=3": ["video=3: allowed is bool"],
    "curiosity=foo": ["curiosity=foo: no such option, allowed are ama, bayesian_surprise, byol_explore, "],
    "experiment=foo": ["experiment=foo: no such option, allowed are ", "doorkey"],
    "env.id=MiniGrid-DorKey-8x8-v0": ["env.id='MiniGrid-DorKey-8x8-v0'", "close matches are MiniGrid-DoorKey-8x8-v0"],
    "env.id=3": ["env.id='3': "],
    "env.num_envs=0": ["env.num_envs=0: allowed are whole numbers from 1"],
    "env.engine=fast": ["env.engine=fast: allowed is Literal['auto', 'envpool', 'gymnasium']"],
    "env=cartpole encoder=grid": ["encoder=grid with space=Box(", "allowed is an integer Box (H, W, 3)"],
    "env=cartpole encoder=conv": ["encoder=conv with space=Box(", "allowed is an image Box"],
    "env=frozenlake encoder=mlp": ["encoder=mlp with space=Discrete(16): allowed is a Box"],
    "env=dict encoder=grid": ["encoder=grid with space=Dict(", "allowed is an integer Box"],
    "memory.heads=3": ["memory.heads=3: allowed are divisors of memory.dim=16"],
    "memory=foo": ["memory=foo: no such option, allowed are gru, huggingface, mlp, transformer"],
    "reward.normalise=foo": ["reward.normalise=foo: allowed is Literal['return', 'mean_std', 'none']"],
    "optimizer.lr=abc": ["optimizer.lr=abc: allowed is float"],
    "+optimizer.part_lr.heads=1": ["optimizer.part_lr=['heads']: allowed are encoder, memory, policy, curiosity"],
    "+policy.foo=1": ["policy.foo=1: no such key, allowed are objective, return_scale, imagination, actor"],
    "weights.delta=abc": ["weights.delta=abc: allowed is float"],
    "+weights.foo=1": ["weights.foo: no such loss, allowed are delta, rew, end, policy, entropy, value"],
    "data.model_batch=1 policy.actor.memory_gradient=true": ["data.model_batch=1: allowed with policy.actor.memory_"],
    "data.model_every=2 policy.actor.memory_gradient=true": ["data.model_every=2: allowed with policy.actor.memory_"],
    "data.model_every=3": ["data.model_every=3: allowed with data.minibatches=2 and env.num_envs=4 are 1, 2"],
    "data.model_batch=3": ["data.model_batch=3: allowed are null and 1 to 2"],
    "data.batch=2": ["data.batch=2: renamed, use data.minibatches (minibatches in a pass, env.num_envs / 2)"],
    "data.replay_batch=1": ["data.replay_batch=1: allowed with data.replay_capacity=0 is 0"],
    "trainer.precision=foo": ["trainer.precision=foo: allowed is "],
    "trainer.devices=abc": ["trainer: `devices`"],
    "trainer.accelerator=foo": ["`accelerator='foo'`. Available names are"],
    "run_dir=/proc/no/where": ["run_dir=/proc/no/where: cannot be created (No such file or directory)"],
    "checkpoint=auto": ["checkpoint=auto: needs run_dir"],
    "checkpoint=/no/such.ckpt": ["checkpoint=/no/such.ckpt: no such file"],
    "optimizer.lr=1e30 optimizer.warmup=0 optimizer.part_lr.policy=null": ["loss is not finite at env_steps=32: "],
}


@pytest.mark.parametrize("arguments", BAD)
def test_bad_input(cli, arguments: str, tmp_path: Path) -> None:
    ended = cli("total_steps=32", *arguments.split(" "))
    assert ended.code == 2
    assert ended.err.startswith("error: ") and ended.err.count("\n") == 1 and ended.err.endswith("\n")
    for words in BAD[arguments]:
        assert words in ended.err
    begun = arguments.startswith(("+weights", "optimizer.lr=1e30"))  # detected only with the losses
    left = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert bool(left) == begun, "bad input leaves nothing behind"
    if begun:
        (run,) = tmp_path.glob("runs/doorkey/*/run.json")
        assert json.loads(run.read_text())["status"] == "failed"


def test_checkpoints_that_do_not_fit(cli, tiny_run: Path, tmp_path: Path) -> None:
    good = tiny_run / "checkpoints" / "last.ckpt"
    half, other, evil = tmp_path / "half.ckpt", tmp_path / "other.ckpt", tmp_path / "evil.ckpt"
    half.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    torch.save({"weights": torch.zeros(3)}, other)
    torch.save({"state_dict": {}, "config": Path("x")}, evil)
    before = good.read_bytes()
    for path, changes, words in (
        (half, [], f"error: checkpoint={half}: not readable ("),
        (other, [], f"error: checkpoint={other}: not a checkpoint of this project (needs state_dict and config)"),
        (evil, [], f"error: checkpoint={evil}: not readable ("),
        (good, ["memory.depth=2"], f"error: memory.depth=2: allowed is 1, that of the run of checkpoint={good}"),
        (good, ["memory=gru"], f"error: memory=gru: allowed is transformer, that of the run of checkpoint={good}"),
        (good, ["model.hidden=8"], f"error: model.hidden=8: allowed is 16, that of the run of checkpoint={good}"),
        (good, ["total_steps=100"], "error: total_steps=100: the checkpoint has 256 steps already, allowed are more"),
        (good, ["experiment=doorkey"], "error: experiment=doorkey: not allowed with checkpoint="),
        (good, ["data.rollout_length=x"], "error: data.rollout_length=x: allowed is int"),
    ):
        ended = cli(f"checkpoint={path}", f"run_dir={tmp_path}/new", "total_steps=512", *changes, tiny=[])
        assert ended.code == 2 and ended.err.count("\n") == 1 and words in ended.err, ended.err
        assert not (tmp_path / "new").exists()
    assert good.read_bytes() == before


def test_help_lists_the_groups(cli) -> None:
    ended = cli("--help", tiny=[])
    assert ended.code == 0 and ended.err == ""
    for group in ("env", "data", "encoder", "target", "memory", "model", "curiosity", "reward", "policy", "experiment"):
        assert f"\n  {group} " in ended.out, group
    assert "curiosity: ama, bayesian_surprise, byol_explore, " in ended.out


def test_the_configuration_can_be_printed(cli) -> None:
    ended = cli("--cfg=job", "--resolve")
    assert ended.code == 0 and "total_steps: 200000" in ended.out and "${" not in ended.out


def test_a_sweep_makes_a_folder_for_each_run(cli, tmp_path: Path) -> None:
    ended = cli("-m", "seed=0,1", "total_steps=32")
    assert ended.code == 0 and ended.err == ""
    runs = sorted(tmp_path.glob("runs/doorkey/*"), key=lambda p: p.name[-1])
    assert [json.loads((run / "run.json").read_text())["seed"] for run in runs] == [0, 1]
    assert {p.name for p in tmp_path.iterdir()} == {"runs", "multirun"}


def test_runs_of_the_same_second_have_separate_folders(cli, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("time.strftime", lambda _: "now")
    assert [cli("total_steps=32").code for _ in range(2)] == [0, 0]
    assert {p.name for p in tmp_path.glob("runs/doorkey/*")} == {"now_seed0", "now_seed0_2"}


def test_a_sweep_over_several_devices_is_refused(cli) -> None:
    ended = cli("-m", "seed=0,1", "trainer.devices=2", "trainer.accelerator=cpu", "total_steps=32")
    assert ended.code == 2 and ended.err == "error: trainer.devices=2: allowed in a sweep is 1\n"


def test_a_rank_started_by_a_launcher_needs_a_folder(cli, monkeypatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    ended = cli("total_steps=32")
    assert ended.code == 2 and "error: run_dir=null: must be given" in ended.err


def test_as_a_process(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-m", "worldmodel.train", *TINY, "data.minibatches=3"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 2 and ended.stdout == ""
    assert (
        ended.stderr == "error: data.minibatches=3: allowed are divisors of env.num_envs x data.rollout_length = 32\n"
    )
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
