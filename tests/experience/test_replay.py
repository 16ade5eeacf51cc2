"""Old sequences: what is kept, for how long, and that a restart doesn't lose it."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from helpers.experience import everything
from helpers.tiny import clone, tiny_agent

from worldmodel.experience.replay import Replay, concatenate
from worldmodel.types import Rollout, Sequences, first_leaf


@pytest.fixture(scope="module", params=["doorkey", "dict"])
def scored(request) -> tuple:
    """An agent and a rollout with its rewards and returns."""
    agent, data, _ = tiny_agent(f"env={request.param}", f"encoder={'dict' if request.param == 'dict' else 'grid'}")
    roll = agent.score(data.collector.collect())
    data.close()
    return agent, roll


def test_keeps_what_the_world_model_learns_from(scored) -> None:
    agent, roll = scored
    replay = Replay(8)
    replay.add(roll)
    kept = everything(replay)
    for field in fields(Sequences):
        if field.name != "obs":
            assert torch.equal(getattr(kept, field.name), getattr(roll, field.name))
    assert torch.equal(first_leaf(kept.obs), first_leaf(roll.obs))
    assert kept.new == roll.num_new and kept.h is None and kept.z is None and kept.adv is None
    torch.testing.assert_close(agent.model(kept).error, agent.model(roll).error)


def test_holds_no_reference_to_the_rollout(scored) -> None:
    roll = clone(scored[1])
    replay = Replay(8)
    replay.add(roll)
    before = everything(replay).act
    roll.act += 1
    assert torch.equal(everything(replay).act, before)
    drawn, _ = replay.sample(1, torch.device("cpu"))
    drawn.act += 1  # nor do those who draw share its memory
    assert torch.equal(everything(replay).act, before)


def test_forgets_the_oldest(scored) -> None:
    replay = Replay(6)
    for update in range(3):
        roll = clone(scored[1])
        roll.rew_ext.fill_(update)
        replay.add(roll)
    assert everything(replay).rew_ext[:, 0].tolist() == [1, 1, 2, 2, 2, 2]


def test_capacity_zero_keeps_nothing(scored) -> None:
    replay = Replay(0)
    replay.add(scored[1])
    assert len(replay) == 0 and replay.state_dict() == {}


def test_samples_uniformly(scored) -> None:
    torch.manual_seed(0)
    replay = Replay(4)
    roll = clone(scored[1])
    roll.rew_ext[:] = torch.arange(4.0)[:, None]
    replay.add(roll)
    drawn, numbers = replay.sample(4000, torch.device("cpu"))
    picks = drawn.rew_ext[:, 0].long()
    assert picks.tolist() == numbers.tolist()
    assert (picks.bincount() / 4000 - 0.25).abs().max() < 0.03


def test_a_restart_brings_everything_back(scored, tmp_path) -> None:
    replay, again = Replay(8), Replay(8)
    replay.add(scored[1])
    torch.save(replay.state_dict(), tmp_path / "replay")
    again.load_state_dict(torch.load(tmp_path / "replay", weights_only=True))
    assert len(again) == len(replay) == 4
    a, b = everything(replay), everything(again)
    assert torch.equal(a.act, b.act) and torch.equal(first_leaf(a.obs), first_leaf(b.obs)) and a.new == b.new


def test_fresh_and_old_sequences_join_on_what_both_have(scored) -> None:
    roll = scored[1]
    replay = Replay(8)
    replay.add(roll)
    joined = concatenate([roll, replay.sample(3, torch.device("cpu"))[0]])
    assert isinstance(joined, Rollout) and len(joined) == 7 and joined.h is None and joined.new == roll.num_new
