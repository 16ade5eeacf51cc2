"""Draws in proportion to weights, and the priorities of Curious Replay, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.tiny import EASY, minibatches, tiny_agent

from worldmodel.experience.replay import CuriousReplayPriority, Replay
from worldmodel.experience.replay.sum_tree import SumTree

CPU = torch.device("cpu")


@pytest.mark.parametrize("capacity", [1, 2, 5, 8, 1000])
def test_the_tree_finds_what_a_running_sum_finds(capacity: int) -> None:
    draw = np.random.default_rng(0)
    tree, weights = SumTree(capacity), np.zeros(capacity)
    for _ in range(20):
        index = draw.integers(capacity, size=3)
        index = np.unique(index)
        weights[index] = draw.integers(0, 4, size=len(index))  # integers, whose sums are exact; some are zero
        tree.put(index, weights[index])
        assert tree.total == weights.sum() and (tree[np.arange(capacity)] == weights).all()
        if weights.sum():
            shares = draw.random(200)
            expected = np.searchsorted(np.cumsum(weights), shares * weights.sum(), side="right")
            assert (tree.find(shares) == expected).all()


def test_zero_weights_are_never_found() -> None:
    tree = SumTree(6)
    tree.put(np.array([1, 4]), np.array([0.1, 0.2]))
    shares = np.append(np.linspace(0, 1, 999, endpoint=False), np.nextafter(1, 0))
    assert set(tree.find(shares)) == {1, 4}


def test_draws_are_in_proportion() -> None:
    tree = SumTree(4)
    tree.put(np.arange(4), np.array([1.0, 0.0, 3.0, 6.0]))
    found = np.bincount(tree.find(np.random.default_rng(0).random(20_000)), minlength=4) / 20_000
    assert np.abs(found - [0.1, 0.0, 0.3, 0.6]).max() < 0.015


def test_priorities_by_hand() -> None:
    curious = CuriousReplayPriority(c=8.0, beta=0.5, alpha=2.0, eps=1.0, fresh=100.0)
    curious.reset(4)
    curious.add(np.array([0, 1]))
    assert curious.tree[np.arange(4)].tolist() == [100, 100, 0, 0]
    curious.update(np.array([1]), np.array([2.0]))
    assert curious.tree[np.array([1])].tolist() == [8 * 0.5 + 3.0**2]
    curious.update(np.array([1, 0, 1]), np.array([7.0, 0.0, 1.0]))  # drawn twice at once: seen three times by now
    assert curious.tree[np.array([0, 1])].tolist() == [8 * 0.5 + 1, 8 * 0.125 + 4]
    curious.add(np.array([1]))  # another sequence takes the slot
    assert curious.tree[np.array([1])].tolist() == [100] and curious.visits[1] == 0


@pytest.mark.parametrize("change", [{"beta": 1.5}, {"c": -1.0}, {"alpha": -1.0}, {"eps": 0.0}, {"fresh": 0.0}])
def test_bad_settings(change: dict[str, float]) -> None:
    (key,) = change
    with pytest.raises(ValueError, match=rf"data\.replay_priority\.{key}="):
        CuriousReplayPriority(**change)


@pytest.mark.parametrize(
    "key", ["replay_priority={_target_: worldmodel.experience.replay.CuriousReplayPriority}", "replay_dir=x"]
)
def test_no_replay_no_settings_of_it(cli, key: str) -> None:
    ended = cli(f"data.{key}")
    assert ended.code == 2 and f"data.{key.split('=')[0]}: allowed with data.replay_batch=0 is null" in ended.err


def test_the_replay_draws_by_priority_and_drops_the_oldest() -> None:
    _, stream, _ = tiny_agent(*EASY)
    roll = stream.collector.collect()
    stream.close()
    replay = Replay(6, CuriousReplayPriority(c=0.0, alpha=1.0, eps=1e-9, fresh=1.0))
    replay.add(roll)
    replay.update_priorities(np.arange(4), torch.tensor([0.0, 1.0, 0.0, 3.0]))
    drawn, numbers = replay.sample(4000, CPU)
    assert torch.equal(drawn.act, roll.act[torch.from_numpy(numbers)])
    assert np.abs(np.bincount(numbers, minlength=4) / 4000 - [0, 0.25, 0, 0.75]).max() < 0.03
    replay.update_priorities(np.array([1]), torch.tensor([5.0]))
    replay.add(roll)  # 4 to 7, over 0 and 1
    numbers = replay.sample(7000, CPU)[1]
    assert np.abs(np.bincount(numbers, minlength=8) / 7000 - np.array([0, 0, 0, 3, 1, 1, 1, 1]) / 7).max() < 0.03


def test_weights_are_restored_with_the_sequences() -> None:
    """Also where the oldest sequence is not in the first slot; the same draws follow."""
    _, stream, _ = tiny_agent(*EASY)
    roll = stream.collector.collect()
    stream.close()
    one = Replay(6, CuriousReplayPriority())
    one.add(roll)
    one.add(roll)
    one.update_priorities(np.array([3, 6]), torch.tensor([1.0, 2.0]))
    state = one.state_dict()
    for capacity in (6, 4):
        two = Replay(capacity, CuriousReplayPriority())
        two.load_state_dict(state)
        assert len(two) == capacity
        left = two.state_dict()
        assert torch.equal(left["priority"]["weights"], state["priority"]["weights"][-capacity:])
        assert torch.equal(left["priority"]["visits"], state["priority"]["visits"][-capacity:])
    two = Replay(6, CuriousReplayPriority())
    two.load_state_dict(state)
    draws = []
    for replay in (one, two):
        torch.manual_seed(0)
        draws.append(replay.sample(50, CPU)[1].tolist())
    assert draws[0] == draws[1]


def test_priorities_are_updated_with_the_prediction_errors() -> None:
    options = ["data=curious", "data.replay_batch=3", "data.replay_capacity=8", "data.minibatches=1"]
    agent, stream, cfg = tiny_agent(*EASY, *options)
    batch = next(iter(minibatches(agent, stream, cfg)))
    assert len(batch.replayed) == 3 and len(batch.model) == 4 + 3
    loss, rows = agent.losses(batch).replayed, batch.model[-3:]
    out, mask = agent.model(rows), rows.new_steps(rows.mask)
    expected = torch.stack(
        [e[m].mean() if m.any() else e.sum() * 0 for e, m in zip(out.skill_error, mask, strict=True)]
    )
    torch.testing.assert_close(loss, expected.detach())
    stream.replay.update_priorities(batch.replayed, loss)
    stream.replay.sample(1, CPU)
    assert stream.replay.pending == [] and stream.replay.priority.visits[:4].sum() == 3
    stream.close()
