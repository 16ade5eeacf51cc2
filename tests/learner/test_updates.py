"""Minibatches of one update: their order, their sizes and the turns of the world model."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny import EASY, minibatches, tiny_agent

REPLAY = ["data.replay_batch=1", "data.replay_capacity=8"]


def test_the_world_model_takes_its_turn_with_the_sequences_of_several_minibatches() -> None:
    turns = ["data.batch=1", "data.model_every=2", "data.model_batch=1", "data.epochs=3"]
    agent, stream, cfg = tiny_agent(*EASY, *turns, *REPLAY)
    loader = minibatches(agent, stream, cfg)
    batches, length = list(loader), len(loader)
    stream.close()
    assert len(batches) == length == 3 * 4
    assert [b.model is not None for b in batches] == [True, False] * 6
    assert [b.replayed is not None for b in batches] == [True, False] * 6
    assert all(len(b.policy) == 1 and (b.model is None or len(b.model) == 2) for b in batches)
    assert all(torch.equal(b.model.act[0], b.policy.act[0]) for b in batches[::2])
    for epoch in range(3):  # each sequence once
        acts = torch.cat([b.policy.act for b in batches[4 * epoch : 4 * epoch + 4]])
        assert len({tuple(a.tolist()) for a in acts}) == 4


@pytest.mark.parametrize("replay", [False, True])
def test_an_update_stores_its_rollout_and_counts_its_steps(replay: bool) -> None:
    agent, stream, cfg = tiny_agent(*EASY, *(REPLAY if replay else []))
    loader = minibatches(agent, stream, cfg)
    for update, steps in ((1, 28), (2, 56)):  # an episode of 6 steps and its reset fill 7 of the 8 rows
        batches = list(loader)
        assert len(batches) == 2 * 2 and int(agent.env_steps) == steps
        assert len(stream.replay) == (4 * update if replay else 0) and stream.rollouts == update
        assert all((b.replayed is not None) == replay for b in batches)
    stream.close()
