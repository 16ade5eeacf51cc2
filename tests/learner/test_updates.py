"""Minibatches of one update: their order, their sizes and the turns of the world model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.experience import CHAIN, DREAM
from helpers.runs import last, rows
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
    for update, steps in ((1, 28), (2, 56)):  # an episode of 6 steps and its reset fill 7 of the 8 rows
        batches = list(loader)
        assert len(batches) == 2 * 2 and int(agent.env_steps) == steps
        assert len(stream.replay) == (4 * update if replay else 0) and stream.rollouts == update
        assert all((b.replayed is not None) == replay for b in batches)
    stream.close()


@pytest.mark.parametrize("every", [1, 2])
def test_above_the_limit_the_policy_skips_the_rest_of_the_rollout(every: int) -> None:
    turns = [f"data.model_every={every}", "data.minibatches=4", "data.epochs=2", "policy.objective.kl_limit=0.1"]
    agent, stream, cfg = tiny_agent(*EASY, *turns)
    loader, parts = minibatches(agent, stream, cfg), []
    for divergences in ([0.0] * 8, [0.0, 0.0, 0.2, 0.0]):
        parts.append([])
        for batch in loader:
            parts[-1].append((batch.model is not None, batch.policy is not None))
            if batch.policy is None:
                terms = agent.losses(batch).terms
                assert set(terms) == {"delta", "rew", "end"}
                agent.weighted_sum(terms).backward()
                assert all(p.grad is None for p in agent.policy.parameters())
                agent.record_step({})
            else:
                agent.record_step({"kl": torch.tensor(divergences.pop(0))})
    stream.close()
    model = [True, False] * 4 if every == 2 else [True] * 8
    assert parts[0] == [(m, True) for m in model], "below the limit, and again for the next rollout"
    assert parts[1] == [(m, i < 3) for i, m in enumerate(model) if m or i < 3]


def test_a_limit_ends_the_learning_of_a_run(cli, tmp_path: Path) -> None:
    """A tiny limit is exceeded by the first step, so that two minibatches of each update train the policy."""
    settings = [*EASY, "total_steps=84", "optimizer.lr=0.01", "optimizer.part_lr.policy=0.01", "data.model_every=2"]
    assert cli(*settings, "data.minibatches=4", "policy.objective.kl_limit=1e-9", "run_dir=run").code == 0
    steps = [int(x["step"]) for x in last(tmp_path / "run")["optimizer_states"][0]["state"].values()]
    assert set(steps) == {3 * 2, 3 * 4} and [r["env_steps"] for r in rows(tmp_path / "run")] == [28, 56, 84]
    assert rows(tmp_path / "run")[-1]["kl"] > 1e-9


def test_acting_is_without_dropout_and_learning_is_not() -> None:
    torch.manual_seed(0)
    agent, stream, cfg = tiny_agent(*EASY, "memory.dropout=0.5", *REPLAY)
    stream.metrics = {"keep": (keep := Keep())}
    batch = next(iter(minibatches(agent, stream, cfg)))
    stream.close()
    (roll,) = keep.rollouts
    assert agent.model.training
    learning = [agent.model(roll).h.detach() for _ in range(2)]
    assert not torch.allclose(*learning)
    agent.model.eval()
    torch.testing.assert_close(agent.model(roll).h.detach(), roll.h, atol=1e-5, rtol=0)
    assert abs(float(agent.losses(batch).figures["kl"])) < 1e-6


def test_imagination_is_without_dropout() -> None:
    torch.manual_seed(0)
    agent, stream, cfg = tiny_agent(*CHAIN, *DREAM, "memory.dropout=0.5", "data.rollout_length=4")
    modes = []
    step = agent.model.memory.step
    agent.model.memory.step = lambda *args: modes.append(agent.model.memory.training) or step(*args)
    next(iter(minibatches(agent, stream, cfg)))
    stream.close()
    assert modes and not any(modes) and agent.model.training


def test_dropout_is_refused_where_the_policy_trains_the_memory() -> None:
    with pytest.raises(ValueError, match=r"memory.dropout=0.1: allowed with policy.actor.memory_gradient=true is 0"):
        tiny_agent("memory.dropout=0.1", "policy.actor.memory_gradient=true")
    backbone = ["memory=huggingface", "memory.options.resid_pdrop=0.1", "policy.actor.memory_gradient=true"]
    with pytest.raises(ValueError, match=r"memory_gradient=true: allowed with dropout \(0.1 in memory.backbone"):
        tiny_agent(*backbone)
    tiny_agent(*backbone[:2])[1].close()
