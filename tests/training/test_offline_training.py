"""Invariants: an offline run takes no environment step, resumes bit for bit, and an online run goes on from it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.runs import TIMED, last, record, rows, run_main
from helpers.tiny import TINY, fitting, tiny_config

from worldmodel import record as record_command
from worldmodel.envs.adapter import Adapter
from worldmodel.errors import ConfigError
from worldmodel.experience.offline import read_dataset
from worldmodel.policy import Cloning, ReturnConditioned
from worldmodel.training.build import build_agent, build_data, env_spec
from worldmodel.training.loading import Agent

CART = ("experiment=cartpole", "env.engine=gymnasium", "data.replay_batch=1", "data.replay_capacity=32")


@pytest.fixture(scope="module")
def cart(tmp_path_factory) -> Path:
    """Random episodes of CartPole, recorded by the command."""
    out = tmp_path_factory.mktemp("sets") / "cart"
    arguments = ["behaviour=random", "preset=cartpole", "episodes=20", "num_envs=4", f"out={out}"]
    assert run_main(arguments, record_command.main) == 0
    return out


def offline(cart: Path, run: Path, *changes: str) -> list[str]:
    return fitting(TINY, (*CART, "data=offline", f"data.path={cart}", f"run_dir={run}", *changes))


@pytest.fixture
def no_steps(monkeypatch):
    def refuse(self, act):
        raise AssertionError("an environment step in an offline run")

    monkeypatch.setattr(Adapter, "step", refuse)


def test_recorded_episodes(cart):
    data = read_dataset(cart)
    assert len(data.first) == 20 and data.env_id == "CartPole-v1"
    lengths = np.diff([*data.first.tolist(), len(data.rew)]) - 1
    assert data.steps == data.rew.sum() == lengths.sum()  # a reward of 1 a step
    assert int(data.end.sum()) == 20  # random CartPole falls
    assert {0, 1} == set(data.act.tolist())
    first = data.obs[data.first]
    assert first.abs().max() <= 0.05  # where CartPole begins
    final = data.obs[(data.end.nonzero()[:, 0] + 1)]
    assert ((final[:, 0].abs() > 2.4) | (final[:, 2].abs() > 0.2095)).all()  # the true final observations


@pytest.mark.parametrize("policy", ["ppo", "cloning", "return_conditioned"])
def test_run_without_a_step(cart, tmp_path, no_steps, policy):
    assert run_main(offline(cart, tmp_path, f"policy={policy}", "total_steps=100")) == 0
    table = rows(tmp_path)
    assert [r["env_steps"] for r in table] == [0] * len(table)
    assert 100 <= table[-1]["offline_steps"] < 132 and record(tmp_path)["offline_steps"] == table[-1]["offline_steps"]
    assert record(tmp_path)["env_steps"] == 0 and all(np.isnan(r["return_ext"]) for r in table)
    assert ("loss_policy" in table[-1] and not np.isnan(table[-1]["loss_policy"])) == (policy != "ppo")
    assert not np.isnan(table[-1]["loss_delta"])


@pytest.mark.parametrize("policy", ["cloning", "return_conditioned"])
def test_resumes_bit_for_bit(cart, tmp_path, policy):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert run_main(offline(cart, whole, f"policy={policy}", "total_steps=150")) == 0
    assert run_main(offline(cart, halves, f"policy={policy}", "total_steps=60")) == 0
    assert run_main([f"checkpoint={halves}/checkpoints/last.ckpt", "total_steps=150"]) == 0
    a, b = last(whole), last(halves)
    assert all(torch.equal(x, b["state_dict"][name]) for name, x in a["state_dict"].items())
    for one, other in zip(rows(whole), rows(halves), strict=True):
        assert {k: x for k, x in one.items() if k not in TIMED} == pytest.approx(
            {k: x for k, x in other.items() if k not in TIMED}, nan_ok=True, abs=0
        )


def test_goes_on_online(cart, tmp_path):
    before, after = tmp_path / "offline", tmp_path / "online"
    assert run_main(offline(cart, before, "policy=cloning", "total_steps=60")) == 0
    fine_tuning = [f"checkpoint={before}/checkpoints/last.ckpt", "policy=ppo", f"run_dir={after}", "total_steps=160"]
    sizes = ["data=default", *(x for x in (*TINY, *CART) if x.startswith("data."))]
    assert run_main([*fine_tuning, *sizes, "policy.actor.hidden=16"]) == 0
    table = rows(after)
    offline_steps = rows(before)[-1]["offline_steps"]
    assert {r["offline_steps"] for r in table} == {offline_steps}
    assert table[-1]["env_steps"] + offline_steps >= 160 > table[-1]["env_steps"] > 0
    assert record(after)["steps_before"] == offline_steps
    assert run_main([f"checkpoint={after}/checkpoints/last.ckpt", "total_steps=220"]) == 0
    assert rows(after)[-1]["env_steps"] + offline_steps >= 220
    Agent.load(after / "checkpoints" / "last.ckpt").act(np.zeros(4, np.float32))


def test_agent_acts_for_the_largest_return(cart, tmp_path):
    assert run_main(offline(cart, tmp_path, "policy=return_conditioned", "total_steps=40")) == 0
    agent = Agent.load(tmp_path / "checkpoints" / "last.ckpt")
    policy, data = agent.module.policy, read_dataset(cart)
    assert isinstance(policy, ReturnConditioned)
    assert policy.target == data.returns_to_go()[data.first].max()
    seen = policy.see(torch.zeros(1, 4), torch.zeros(1, 16))
    assert seen[0, -1] == (policy.target - policy.mean) / policy.std
    other = policy.with_return(seen, policy.mean[None])
    assert other[0, -1] == 0 and torch.equal(other[:, :-1], seen[:, :-1])
    assert agent.act(np.zeros(4, np.float32)) in (0, 1)


def test_cloning_learns_the_recorded_action():
    cfg = tiny_config(*CART)
    policy = build_agent(cfg, env_spec(cfg)).policy
    params = torch.tensor([[[0.0, 2.0]]])
    logp, _ = policy.dist.evaluate(params, torch.tensor([[1]]), 1.0)
    assert Cloning.offline and float(-logp) == pytest.approx(np.log(1 + np.exp(-2.0)))


@pytest.mark.parametrize(
    "changes, line",
    [
        (["env.id=Acrobot-v1"], "(recorded in CartPole-v1): obs_space Box("),
        (["data.path=/nowhere"], "data.path=/nowhere: no dataset of Minari"),
        (["data=default", "policy=cloning"], "policy.objective Cloning: learns from recorded steps alone"),
        (["policy=cloning", "policy.objective.kl_limit=0.1"], "policy.objective.kl_limit=0.1: allowed"),
    ],
)
def test_refusals(cart, tmp_path, capsys, changes, line):
    changes = [x for x in changes if x != "data=default"] if "data=default" not in changes else changes
    arguments = offline(cart, tmp_path / "run", *changes)
    if "data=default" in changes:
        arguments = fitting(TINY, (*CART, f"run_dir={tmp_path / 'run'}", *changes))
    assert run_main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert line in error and len(error.splitlines()) == 1


def test_needs_minari(cart, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "minari.dataset.minari_storage", None)
    assert run_main(offline(cart, tmp_path / "run")) == 2
    assert "pip install 'worldmodel[offline]'" in capsys.readouterr().err


def test_recording_needs_an_agent_or_a_preset(tmp_path, capsys):
    for arguments, line in (
        (["episodes=1"], "allowed without a checkpoint is random"),
        (["behaviour=random"], "one of both must be given"),
        (["behaviour=mine"], "behaviour=mine: allowed are sampled, greedy, random, replay"),
    ):
        assert run_main([*arguments, f"out={tmp_path / 'x'}"], record_command.main) == 2
        assert line in capsys.readouterr().err


def test_record_an_agent_of_minigrid(tmp_path):
    """MiniGrid's Dict observations: one key, symbols of uint8, episodes of a time limit."""
    run, out = tmp_path / "run", tmp_path / "set"
    easy = ["env.id=MiniGrid-Empty-5x5-v0", "+env.max_episode_steps=6", "env.engine=gymnasium", "total_steps=32"]
    assert run_main(fitting(TINY, (*easy, f"run_dir={run}"))) == 0
    arguments = [f"checkpoint={run}/checkpoints/last.ckpt", "episodes=7", "num_envs=3", f"out={out}"]
    assert run_main(arguments, record_command.main) == 0
    data = read_dataset(out)
    assert data.obs.dtype == torch.uint8 and len(data.first) == 7
    assert int((data.end | data.trunc).sum()) == 7 and data.trunc.any()
    changes = [*easy, "data=offline", f"data.path={out}", "policy=cloning", f"run_dir={tmp_path / 'off'}"]
    assert run_main(fitting(TINY, tuple(changes))) == 0


def test_continuous_actions(tmp_path):
    out = tmp_path / "set"
    arguments = ["behaviour=random", "preset=pendulum", "episodes=4", "num_envs=4", f"out={out}"]
    assert run_main(arguments, record_command.main) == 0
    cfg = tiny_config("experiment=pendulum", "data=offline", f"data.path={out}", "policy=cloning")
    agent, data = build_agent(cfg, env_spec(cfg)), build_data(cfg)
    data.stream.open(agent.make_actor)
    data.stream.begin_update()
    roll = data.stream.source.collect()
    torch.testing.assert_close(agent.policy.dist.execute(roll.sample), roll.new_steps(roll.act), atol=1.1e-3, rtol=0)
    with pytest.raises(ConfigError, match="obs_space"):
        build_data(tiny_config(*CART, "data=offline", f"data.path={out}"))


@pytest.mark.parametrize("capacity", [64, 26])
def test_record_a_replay(tmp_path, capacity):
    """The episodes of training, in its order; those that had begun before the oldest sequence are left out."""
    run, out = tmp_path / "run", tmp_path / "set"
    sizes = ("data.replay_batch=1", f"data.replay_capacity={capacity}", "total_steps=300")
    assert run_main(fitting(TINY, ("experiment=cartpole", *sizes, f"run_dir={run}"))) == 0
    checkpoint = run / "checkpoints" / "last.ckpt"
    assert run_main([f"checkpoint={checkpoint}", "behaviour=replay", f"out={out}"], record_command.main) == 0
    data, state = read_dataset(out), last(run)["SequenceData"]
    finished = [length for _, length in state["collector"]["episodes"]["finished"]]
    lengths = (np.diff([*data.first.tolist(), len(data.rew)]) - 1).tolist()
    assert all(data.obs[data.first].abs().max(1).values <= 0.05)  # each begins where CartPole begins
    if capacity == 64:
        assert sorted(lengths) == sorted(finished)
    else:
        assert 0 < len(lengths) < len(finished) and set(lengths) <= set(finished)
