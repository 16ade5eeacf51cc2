"""Budgets in real environment steps, and what may change when a run resumes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.runs import last, record, rows, run_main
from helpers.tiny import EASY, TINY, tiny_agent, tiny_config

from worldmodel.curiosity import per_env_buffers
from worldmodel.training.resume import differences

SHORT = [*EASY, "curiosity=e3b", "data.replay_batch=1", "data.replay_capacity=8"]


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of at least 128 steps with a signal that keeps state for each environment."""
    run = tmp_path_factory.mktemp("half") / "run"
    assert run_main([*TINY, *SHORT, "total_steps=128", f"run_dir={run}"]) == 0
    return run


def test_only_real_steps_count() -> None:
    agent, stream, _ = tiny_agent("env=cartpole", "env.engine=gymnasium", "encoder=mlp", "+env.max_episode_steps=3")
    for update in range(1, 6):
        rollout = stream.collector.collect()
        agent.score(rollout)
        resets = 4 * (8 * update // 4)  # rows of a copy: three steps and a reset
        assert int(agent.env_steps) == 4 * 8 * update - resets
        assert stream.collector.episodes.count == resets
    stream.close()


def test_a_run_ends_with_the_first_update_at_its_budget(half: Path) -> None:
    steps = [row["env_steps"] for row in rows(half)]
    assert steps[-2] < 128 <= steps[-1] == record(half)["env_steps"] and sorted(set(steps)) == steps


@pytest.mark.parametrize("change", ["data.rollout_length=24", "env.num_envs=6", "env.num_envs=2"])
def test_a_run_resumes_with_another_size(cli, tmp_path: Path, half: Path, change: str) -> None:
    run = tmp_path / "run"
    before = int(last(half)["state_dict"]["agent.env_steps"])
    ended = cli(f"checkpoint={half}/checkpoints/last.ckpt", "total_steps=256", f"run_dir={run}", change, tiny=[])
    assert ended.code == 0 and ended.err == ""
    steps, saved = [row["env_steps"] for row in rows(run)], last(run)
    assert before < steps[0] and (len(steps) == 1 or steps[-2] < 256) and steps[-1] >= 256
    assert saved["SequenceData"]["rollouts"] == len(rows(half)) + len(steps)
    num_envs = saved["config"]["env"]["num_envs"]
    per_env = {k: v for k, v in saved["state_dict"].items() if k.endswith(("inverse", "episode", "normalizer.sum"))}
    assert len(per_env) == 3 and all(len(v) == num_envs for v in per_env.values())
    assert saved["state_dict"]["agent.reward_normalizer.moments.count"] > before  # goes on


@pytest.mark.parametrize(
    "changes, line",
    [
        (["memory.dim=32"], "memory.dim=32: allowed is 16, "),
        (["memory=gru", "memory.dim=16", "memory.depth=1"], "memory=gru: allowed is transformer, "),
        (["memory.heads=1"], "memory.heads=1: allowed is 2, "),  # all tensors have the same shapes
        (["encoder.dim=8"], "encoder.dim=8: allowed is 16, "),
        (["model.predicts=absolute"], "model.predicts=absolute: allowed is delta, "),
        (["target=inverse", "target.dim=8"], "target=inverse: allowed is random, "),
        (["heads=observation"], "heads=[observation]: allowed is [], "),
        (["policy.actor.own_encoder=false"], "policy.actor.own_encoder=false: allowed is true, "),
        (["curiosity=rnd"], "curiosity=rnd: allowed is e3b, "),
        (["optimizer=muon"], "optimizer=muon: allowed is adamw, "),
        (["env.tv=action"], "env.tv=action: allowed is clean, "),  # another number of actions
    ],
)
def test_what_cannot_change_is_named_as_a_setting(cli, half: Path, changes: list[str], line: str) -> None:
    checkpoint = f"checkpoint={half}/checkpoints/last.ckpt"
    ended = cli(checkpoint, "total_steps=256", "run_dir=run", *changes, tiny=[])
    assert ended.code == 2 and ended.err == f"error: {line}that of the run of {checkpoint}\n"
    assert not Path("run").exists()


def test_another_environment_of_the_same_shapes_is_noticed(cli, tmp_path: Path, half: Path) -> None:
    given = [f"checkpoint={half}/checkpoints/last.ckpt", "total_steps=150", "env.id=MiniGrid-Empty-6x6-v0"]
    ended = cli(*given, "policy.actor.temperature=2.0", f"run_dir={tmp_path}/run", tiny=[])
    assert ended.code == 0 and ended.err.splitlines()[0] == (
        "warning: env.id=MiniGrid-Empty-6x6-v0 (was MiniGrid-Empty-5x5-v0): the run resumes in another environment"
    )


def test_differences_of_configurations() -> None:
    old = {"a": 1, "b": {"_target_": "x", "c": [1, 2], "d": None}, "e": {"_target_": "x", "f": 1}}
    new = {"a": 1, "b": {"_target_": "x", "c": [1, 3], "g": None, "h": 4}, "e": {"_target_": "y"}}
    found = list(differences(old, new, "k"))
    assert found == [("k.b.c", [1, 2], [1, 3]), ("k.b.h", None, 4), ("k.e._target_", "x", "y")]


def test_names_of_the_state_of_each_environment() -> None:
    agent, stream, cfg = tiny_agent("curiosity=deir", "env=cartpole", "encoder=mlp")
    stream.close()
    larger, other, _ = tiny_agent("curiosity=deir", "env=cartpole", "encoder=mlp", "env.num_envs=6")
    other.close()
    sizes, more = ({k: v.shape for k, v in a.state_dict().items()} for a in (agent, larger))
    assert {k for k in sizes if sizes[k] != more[k]} == {k for k, x in per_env_buffers(agent).items() if x.ndim}
    assert per_env_buffers(agent).keys() == per_env_buffers(larger).keys()
    assert torch.equal(agent.env_steps, torch.tensor(0)) and tiny_config().env.num_envs == cfg.env.num_envs == 4
