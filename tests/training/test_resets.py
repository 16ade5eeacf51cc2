"""Resets: their parts, their times, their numbers and the moments of the optimizer."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from helpers.runs import last
from helpers.tiny import joint_loss, tiny_agent, tiny_config

from worldmodel.training.build import build_agent, build_data, build_module, env_spec
from worldmodel.training.callbacks import Metrics, Resets
from worldmodel.types import Minibatch

SETTINGS = ["target=inverse", "curiosity=rnd"]


def empty_metrics() -> Metrics:
    """Metrics without a row."""
    return Metrics(Path("unused"), build_data(tiny_config()).stream)


def made(parts: list[str], **settings) -> tuple:
    """An agent after one step of its optimizer, the optimizer, the callback, and a scored rollout."""
    torch.manual_seed(0)
    agent, stream, cfg = tiny_agent(*SETTINGS)
    roll = agent.score(stream.collector.collect())
    stream.close()
    optimizer = build_module(cfg, agent).configure_optimizers()["optimizer"]
    joint_loss(agent, Minibatch(roll, roll)).backward()
    optimizer.step()
    resets = Resets(empty_metrics(), lambda: build_agent(cfg, env_spec(cfg)), 3, parts, **({"every": 1} | settings))
    return agent, optimizer, resets, roll


@pytest.mark.parametrize(
    ("parts", "prefixes"),
    [
        (["policy_head"], ["policy.actor.", "policy.critic."]),
        (["predictor", "policy"], ["model.heads.", "policy."]),
        (["curiosity"], ["curiosity."]),
        (
            ["all_but_encoder"],
            ["model.token.", "model.act.", "model.start", "model.memory.", "model.heads.", "policy.", "curiosity."],
        ),
    ],
)
def test_only_these_parts_are_reset(parts: list[str], prefixes: list[str]) -> None:
    agent, optimizer, resets, roll = made(parts)
    before = {k: v.clone() for k, v in agent.state_dict().items()}
    parameters, draws = dict(agent.named_parameters()), torch.get_rng_state()
    resets.reset(agent, [optimizer])
    assert torch.equal(draws, torch.get_rng_state())
    gone = {n for n, p in parameters.items() if p.requires_grad and n.startswith(tuple(prefixes))}
    assert gone
    for name, value in agent.state_dict().items():
        if name not in gone:
            assert torch.equal(value, before[name]), name
        elif before[name].ndim >= 2:
            assert not torch.equal(value, before[name]), name
    for name, parameter in parameters.items():
        if parameter.requires_grad and parameter.grad is not None:
            assert (parameter in optimizer.state) == (name not in gone), name
    agent.zero_grad()
    joint_loss(agent, Minibatch(roll, roll)).backward()
    optimizer.step()  # a reset parameter starts with new moments
    steps = {n: int(optimizer.state[p]["step"]) for n, p in parameters.items() if p in optimizer.state}
    assert {n for n, s in steps.items() if s == 1} == gone & steps.keys() and max(steps.values()) == 2


def test_new_numbers_each_time_and_the_same_for_one_seed() -> None:
    found = []
    for _ in range(2):
        agent, optimizer, resets, _ = made(["policy"])
        for _ in range(2):
            resets.reset(agent, [optimizer])
            found.append(agent.policy.actor_trunk.weight.detach().clone())
    assert torch.equal(found[0], found[2]) and torch.equal(found[1], found[3]) and not torch.equal(*found[:2])
    # orthogonal with the gain of a new policy
    gram = found[0] @ found[0].T if found[0].shape[0] <= found[0].shape[1] else found[0].T @ found[0]
    torch.testing.assert_close(gram, 2 * torch.eye(len(gram)), atol=1e-5, rtol=0)


def due(resets: Resets, values: list[float]) -> list[int]:
    """The updates after which a reset is due, given the metric's values."""
    found = []
    for update, value in enumerate(values, 1):
        resets.metrics.row = {"return_ext": value, "env_steps": update}
        if resets._due(update):
            found.append(update)
            resets.best, resets.waited = -math.inf, 0
    return found


def test_resets_are_due_periodically_or_on_a_plateau() -> None:
    metrics = empty_metrics()
    assert due(Resets(metrics, None, 0, ["policy"], every=3), [0.0] * 7) == [3, 6]
    plateau = Resets(metrics, None, 0, ["policy"], patience=2, min_change=0.5)
    #                     nan is no plateau     rises      creeps: due   starts again
    assert due(plateau, [math.nan, math.nan, math.nan, 0.0, 1.0, 1.2, 1.4, 0.0, 0.6, 0.6, 0.6, 0.6]) == [7, 11]


def test_resets_within_a_run_and_after_a_restart(cli, tmp_path: Path) -> None:
    settings = [*SETTINGS, "env.engine=gymnasium", "resets=periodic", "resets.every=2", "resets.times=2"]
    ended = cli(*settings, "total_steps=256", "run_dir=whole")
    assert ended.code == 0, ended.err
    assert [line for line in ended.out.splitlines() if line.startswith("reset")] == [
        f"reset policy_head at env_steps={steps}" for steps in (64, 128)
    ]
    assert cli(*settings, "total_steps=96", "run_dir=cut").code == 0
    ended = cli("checkpoint=auto", "run_dir=cut", "total_steps=256", tiny=[])
    assert ended.code == 0 and "reset policy_head at env_steps=128" in ended.out, ended.err
    whole, cut = (last(tmp_path / name)["state_dict"] for name in ("whole", "cut"))
    assert all(torch.equal(value, cut[key]) for key, value in whole.items())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resets.parts=[head]"], "resets.parts=['head']: allowed are lists of policy_head, "),
        (["resets.every=null"], "resets.every=None, resets.patience=None: allowed is null for one of them"),
        (["resets.every=0"], "resets.every=0: allowed are null and whole numbers from 1"),
    ],
)
def test_bad_settings(cli, words: list[str], message: str) -> None:
    ended = cli("resets=periodic", *words)
    assert ended.code == 2 and message in ended.err
