"""Episodic memories and counts: by hand, over resets, and independent of where a rollout is cut."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from helpers.ranks import run_on_two_ranks
from helpers.rollouts import cut
from helpers.worlds import VIEW, rollout, signal, views
from torch.nn import functional as F

from encoders import Dict as DictEncoder
from encoders import Discrete as DiscreteEncoder
from worldmodel.curiosity import Count
from worldmodel.curiosity.blocks.episodic import EpisodicMemory, distances
from worldmodel.curiosity.blocks.hashing import StateHash, pack_bits
from worldmodel.curiosity.count import LifelongVisits
from worldmodel.curiosity.e3b import Ellipse

PATH, EPISODE = [[5, 6, 5, 6, 6, 5, 5]], [[0, 0, 0, 0, 0, 1, 1]]
VISITS = [1, 2, 2, 3, 1, 2]  # of the rows 1 to 6 in their episode; row 5 begins the second one


def test_memory_by_hand() -> None:
    memory = EpisodicMemory(2, (1,), 3)
    x = torch.tensor([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]]])
    past, seen = memory(x, torch.tensor([[0, 0, 0], [0, 0, 1]]))
    assert past[..., 0].tolist() == [[1, 2], [4, 5]]
    assert seen.tolist() == [[[True, False], [True, True]], [[True, False], [False, False]]]
    # the closing rows 3 and 6 are the first rows of the next rollout
    past, seen = memory(torch.tensor([[[3.0], [7.0]], [[6.0], [8.0]]]), torch.tensor([[0, 0], [1, 1]]))
    assert [row[mask].flatten().tolist() for row, mask in zip(past, seen[:, 0], strict=True)] == [[1, 2, 3], [6]]
    assert memory.rows[..., 0].tolist() == [[1, 2, 3], [4, 5, 6]] and memory.episode.tolist() == [[0] * 3, [0, 0, 1]]
    with pytest.raises(ValueError, match=r"curiosity.capacity=0"):
        EpisodicMemory(1, (), 0)


def test_memory_is_bounded() -> None:
    memory = EpisodicMemory(1, (1,), 2)
    x = torch.arange(6.0).view(1, 6, 1)
    past, seen = memory(x, torch.zeros(1, 6, dtype=torch.long))
    assert [past[0, mask].flatten().tolist() for mask in seen[0]] == [[0], [0, 1], [1, 2], [2, 3], [3, 4]]
    assert memory.rows.shape == (1, 2, 1) and memory.rows.flatten().tolist() == [3, 4]


def test_distances_of_equal_rows_are_zero() -> None:
    x = torch.randn(2, 5, 40) * 100
    d = distances(x, x)
    assert (d.diagonal(dim1=1, dim2=2) == 0).all()
    torch.testing.assert_close(d, (x[:, :, None] - x[:, None]).norm(dim=-1))


def test_episodic_counts_by_hand() -> None:
    count = signal(Count)
    reward = count.reward(rollout(views(PATH), EPISODE), None)
    torch.testing.assert_close(reward, torch.tensor([[n**-0.5 for n in VISITS]]))
    short = signal(Count, capacity=1).reward(rollout(views([[5, 6, 5, 5]])), None)
    torch.testing.assert_close(short, torch.tensor([[1.0, 1.0, 0.5**0.5]]))  # the memory holds only the row before


def test_lifelong_counts_by_hand() -> None:
    path = [[5, 6, 5, 5], [7, 6, 6, 5]]
    roll = rollout(views(path), [[0, 0, 0, 1], [0, 0, 0, 0]])
    # row 1: both see 6; row 2: one sees 5, the other 6 for the third time; row 3: both see 5
    n = torch.tensor([[2.0, 1.0, 3.0], [2.0, 3.0, 3.0]])
    count = signal(Count, envs=2, scope="lifelong")
    torch.testing.assert_close(count.reward(roll, None), n.rsqrt())
    more = torch.tensor([[5.0, 4.0, 6.0], [5.0, 6.0, 6.0]])
    torch.testing.assert_close(count.reward(roll, None), more.rsqrt())
    product = signal(Count, envs=2, scope="product").reward(roll, None)
    episodic = torch.tensor([[1.0, 2.0, 1.0], [1.0, 2.0, 1.0]])
    torch.testing.assert_close(product, (n * episodic).rsqrt())
    with pytest.raises(ValueError, match=r"curiosity.scope=daily: allowed are episodic, lifelong, product"):
        signal(Count, scope="daily")


def test_evaluation_adds_no_visits() -> None:
    count = signal(Count, scope="lifelong").eval()
    roll = rollout(views([[5, 6, 6]]))
    for _ in range(2):
        assert count.reward(roll, None).tolist() == [[1.0, 1.0]]
    count.train().reward(roll, None)
    torch.testing.assert_close(count.eval().reward(roll, None), torch.tensor([[3.0, 3.0]]).rsqrt())


def test_lifelong_counts_never_too_little() -> None:
    torch.manual_seed(0)
    keys = torch.randint(-(2**62), 2**62, (50,))[torch.randint(50, (4, 101))]
    for buckets in (16, 2**12):
        got = LifelongVisits(buckets)(keys)
        past = [keys[:, 1 : t + 1].flatten() for t in range(1, 101)]
        true = torch.stack([(keys[:, t + 1, None] == past[t]).sum(-1) for t in range(100)], 1)
        assert (got >= true).all() and got.equal(true.int()) == (buckets > 16)
    with pytest.raises(ValueError, match=r"curiosity.buckets=12"):
        LifelongVisits(12)


def work(rank: int, store: Path, keys: torch.Tensor, out: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.manual_seed(0)
    counts = LifelongVisits(2**8)(keys[2 * rank : 2 * rank + 2])
    torch.save(counts, out / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_ranks_count_together(tmp_path: Path) -> None:
    torch.manual_seed(0)
    visits = LifelongVisits(2**8)
    keys = torch.randint(5, (4, 21)) * 1234567
    run_on_two_ranks(work, tmp_path / "store", keys, tmp_path)
    got = torch.cat([torch.load(tmp_path / f"{rank}.pt") for rank in range(2)])
    assert torch.equal(got, visits(keys)) and got.max() > 10


def test_symbolic_observations_are_distinguished_exactly() -> None:
    torch.manual_seed(0)
    obs = views([list(range(100))] * 2)
    obs[1] = obs[0]
    near = obs.clone()
    near[1, torch.arange(100), 3, 3, 2] ^= 1  # one state bit of one cell
    hashing = signal(StateHash, bits=32)
    assert hashing.exact
    keys = hashing(rollout(obs))
    assert torch.equal(keys[0], keys[1]) and len(keys[0].unique()) == 100
    keys = hashing(rollout(near))
    assert len(torch.cat([keys[0], keys[1]]).unique()) == 200


def test_dictionaries_and_single_numbers_have_keys() -> None:
    space = Dict({"a": Discrete(5), "view": VIEW})
    obs = {"a": torch.tensor([[0, 1, 0, 0]]), "view": views([[3, 3, 3, 4]])}
    roll = rollout(obs["a"])
    roll.obs = obs
    hashing = signal(StateHash, space, DictEncoder, bits=32)
    assert hashing.exact
    a, b, c, d = hashing(roll)[0].tolist()
    assert a == c and len({a, b, d}) == 3
    keys = signal(StateHash, Discrete(9), DiscreteEncoder, bits=32)(rollout(torch.tensor([[8, 2, 8]])))
    assert keys[0, 0] == keys[0, 2] != keys[0, 1]


def test_simhash_of_near_and_far_vectors() -> None:
    from encoders import MLP

    torch.manual_seed(0)
    space = Box(-10, 10, (4,), np.float32)
    hashing = signal(StateHash, space, MLP, bits=16)
    assert not hashing.exact
    x = torch.randn(4, 51, 4)
    keys = hashing(rollout(x))
    assert torch.equal(keys, hashing(rollout(x))), "the first rollout's statistics stay"
    assert keys.unique().numel() > 100
    near = (hashing(rollout(x + 1e-4)) == keys).float().mean()
    far = (hashing(rollout(x + 2.0)) == keys).float().mean()
    assert near > 0.95 and far < 0.1
    fine, coarse = (signal(StateHash, space, MLP, bits=b)(rollout(x)).unique().numel() for b in (16, 3))
    assert coarse <= 8 < fine
    with pytest.raises(ValueError, match=r"curiosity.bits=63"):
        signal(StateHash, space, MLP, bits=63)


def test_bits_by_hand() -> None:
    assert pack_bits(torch.tensor([[True, False, True], [False, False, False]])).tolist() == [5, 0]


def test_ellipse_by_hand() -> None:
    ellipse = Ellipse(1, 1, 0.1)
    one = torch.ones(1, 4, 1)
    got = ellipse(one, torch.tensor([[0, 0, 0, 1]]))
    torch.testing.assert_close(got, torch.tensor([[1 / 1.1, 1 / 2.1, 0.0]]))
    torch.testing.assert_close(ellipse(2 * one, torch.tensor([[1, 1, 1, 1]])), 4 / torch.tensor([[4.1, 8.1, 12.1]]))


def test_ellipse_is_the_inverse() -> None:
    torch.manual_seed(0)
    phi = torch.randn(3, 41, 5)
    got = Ellipse(3, 5, 0.1)(phi, torch.zeros(3, 41, dtype=torch.long))
    for t in (0, 17, 39):
        c = 0.1 * torch.eye(5) + phi[:, : t + 1].mT @ phi[:, : t + 1]
        following = phi[:, t + 1, :, None]
        torch.testing.assert_close(got[:, t], (following.mT @ c.inverse() @ following).flatten(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("make", [lambda: EpisodicMemory(3, (2,), 4), lambda: Ellipse(3, 2, 0.1)])
def test_where_a_rollout_is_cut_makes_no_difference(make) -> None:
    torch.manual_seed(0)
    x, episode = torch.randn(3, 13, 2), torch.randint(0, 3, (3, 13)).sort(1).values

    def read(memory, x, episode):
        if isinstance(memory, Ellipse):
            return memory(x, episode)
        past, seen = memory(x, episode)
        near = distances(x[:, 1:], past).masked_fill(~seen, math.inf)
        return F.pad(near, (0, 4), value=math.inf).sort(-1).values[..., :4]

    whole, parts = make(), make()
    expected = read(whole, x, episode)
    got = [read(parts, x[:, a : b + 1], episode[:, a : b + 1]) for a, b in ((0, 1), (1, 6), (6, 12))]
    torch.testing.assert_close(torch.cat(got, 1), expected)
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[key], value)


def test_reset_clears_and_resizes() -> None:
    count = signal(Count)
    roll = rollout(views([[5, 6, 5]]))
    first = count.reward(cut(roll, 0, 2), None)
    count.reset(1)
    assert torch.equal(count.reward(roll, None), first)
    count.reset(2)
    assert torch.equal(count.reward(rollout(views([[5, 6, 5]] * 2)), None), first.expand(2, -1))
