"""Minibatches of one update: their order, their sizes and the turns of the world model."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny import EASY, minibatches, tiny_agent

from worldmodel.types import ScoredRollout

REPLAY = ["data.replay_batch=1", "data.replay_capacity=8"]


class Keep:
    """A metric that keeps the scored rollouts and numbers their steps, as advantages."""

    def __init__(self) -> None:
        self.rollouts: list[ScoredRollout] = []

    def add(self, rollout: ScoredRollout) -> None:
        rollout.adv.copy_(torch.arange(rollout.adv.numel()).view_as(rollout.adv))
        self.rollouts.append(rollout)

    def summary(self) -> dict[str, float]:
        return {}


def test_the_policy_learns_from_single_steps_and_the_world_model_from_sequences() -> None:
    turns = ["data.minibatches=4", "data.model_every=2", "data.model_batch=1", "data.epochs=3"]
    agent, stream, cfg = tiny_agent(*EASY, *turns, *REPLAY)
    stream.metrics = {"keep": (keep := Keep())}
    loader = minibatches(agent, stream, cfg)
    batches, length = list(loader), len(loader)
    stream.close()
    assert len(batches) == length == 3 * 4
    assert [b.model is not None for b in batches] == [True, False] * 6
    assert [b.replayed is not None for b in batches] == [True, False] * 6
    assert all(len(b.policy) == 4 * 8 // 4 and (b.model is None or len(b.model) == 2) for b in batches)
    scored = keep.rollouts[0]
    obs, next_obs, act = (scored.new_steps(scored.obs), scored.next_rows(scored.obs), scored.new_steps(scored.act))
    for epoch in range(3):
        seen = []
        for batch in batches[4 * epoch : 4 * epoch + 4]:
            for step in batch.policy.split(1):
                b, t = divmod(int(step.adv), 8)
                seen.append((b, t))
                assert torch.equal(step.h[0, 0], scored.h[b, t]) and step.ret_int == scored.ret_int[b, t]
                assert torch.equal(step.obs[0, 0], obs[b, t]) and torch.equal(step.obs[0, 1], next_obs[b, t])
                assert step.new_steps(step.act) == act[b, t] and step.num_new == 1
                assert step.mask[0, 0] == scored.new_steps(scored.mask)[b, t]
                assert step.logp == scored.logp[b, t] and step.value_ext[0, 0] == scored.value_ext[b, t]
        assert sorted(seen) == [(b, t) for b in range(4) for t in range(8)]  # each step once
        first, second = (batch.model.act[0] for batch in batches[4 * epoch : 4 * epoch + 4 : 2])
        assert not torch.equal(first, second)  # another share of the sequences in each turn


def test_with_its_gradient_in_the_memory_the_policy_learns_from_whole_sequences() -> None:
    agent, stream, cfg = tiny_agent(*EASY, "data.minibatches=4", "policy.actor.memory_gradient=true")
    batches = list(minibatches(agent, stream, cfg))
    stream.close()
    assert len(batches) == 2 * 4
    for batch in batches:
        assert len(batch.policy) == 1 and batch.policy.num_new == 8
        assert torch.equal(batch.model.act, batch.policy.act)
    for epoch in range(2):  # each sequence once
        acts = torch.cat([b.policy.act for b in batches[4 * epoch : 4 * epoch + 4]])
        assert len({tuple(a.tolist()) for a in acts}) == 4


@pytest.mark.parametrize("replay", [False, True])
def test_an_update_stores_its_rollout_and_counts_its_steps(replay: bool) -> None:
    agent, stream, cfg = tiny_agent(*EASY, *(REPLAY if replay else []))
    loader = minibatches(agent, stream, cfg)
    for update in (1, 2):
        batches = list(loader)
        assert len(batches) == 2 * 2 and int(agent.env_steps) == update * stream.steps_per_update == update * 32
        assert len(stream.replay) == (4 * update if replay else 0) and stream.rollouts == update
        assert all((b.replayed is not None) == replay for b in batches)
    stream.close()
