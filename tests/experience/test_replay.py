"""Replay in memory: stored fields, order of removal, uniform draws and the restored state."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from helpers.experience import everything
from helpers.tiny import clone, tiny_agent

from worldmodel.experience.replay import Replay
from worldmodel.types import Sequences, concatenate, first_leaf


@pytest.fixture(scope="module", params=["doorkey", "dict"])
def scored(request) -> tuple:
    """An agent and a rollout with its rewards and returns."""
    agent, stream, _ = tiny_agent(f"env={request.param}", f"encoder={'dict' if request.param == 'dict' else 'grid'}")
    roll = agent.score(stream.collector.collect())
    stream.close()
    return agent, roll


def test_stores_the_fields_of_sequences_alone(scored) -> None:
    agent, roll = scored
    replay = Replay(8)
    replay.add(roll)
    kept = everything(replay)
    assert type(kept) is Sequences and kept.num_new == roll.num_new
    for field in fields(Sequences):
        if field.name not in ("obs", "num_new"):
            assert torch.equal(getattr(kept, field.name), getattr(roll, field.name))
    assert torch.equal(first_leaf(kept.obs), first_leaf(roll.obs))
    torch.testing.assert_close(agent.model(kept).error, agent.model(roll).error)


def test_holds_no_reference_to_the_rollout(scored) -> None:
    roll = clone(scored[1])
    replay = Replay(8)
    replay.add(roll)
    before = everything(replay).act
    roll.act += 1
    assert torch.equal(everything(replay).act, before)
    drawn, _ = replay.sample(1, torch.device("cpu"))
    drawn.act += 1  # nor does a drawn batch share its memory
    assert torch.equal(everything(replay).act, before)


def test_the_oldest_are_dropped(scored) -> None:
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


def test_state_is_restored(scored, tmp_path) -> None:
    replay, again = Replay(8), Replay(8)
    replay.add(scored[1])
    torch.save(replay.state_dict(), tmp_path / "replay")
    again.load_state_dict(torch.load(tmp_path / "replay", weights_only=True))
    assert len(again) == len(replay) == 4
    a, b = everything(replay), everything(again)
    assert torch.equal(a.act, b.act) and torch.equal(first_leaf(a.obs), first_leaf(b.obs)) and a.num_new == b.num_new


def test_fresh_and_replayed_sequences_are_joined(scored) -> None:
    roll = scored[1]
    replay = Replay(8)
    replay.add(roll)
    joined = concatenate([roll, replay.sample(3, torch.device("cpu"))[0]])
    assert type(joined) is Sequences and len(joined) == 7 and joined.num_new == roll.num_new
