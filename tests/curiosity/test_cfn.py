"""Coin-flip network: bonuses that follow 1 / sqrt(n), and flips that belong to a visit."""

from __future__ import annotations

import pytest
import torch
from gymnasium.spaces import Discrete
from helpers.experience import collected, everything
from helpers.rollouts import cut
from helpers.tiny import EASY, tiny_agent
from helpers.worlds import pay, rollout, signal, views

from encoders import Discrete as DiscreteEncoder
from worldmodel.curiosity import CFN
from worldmodel.curiosity.cfn import coin_flips, mix
from worldmodel.masked import masked_mean

COUNTS = [1, 2, 4, 8, 16, 32, 64]


def test_mix_agrees_with_splitmix64() -> None:
    """First outputs of SplitMix64 with seed 0, from the reference implementation."""
    step = 0x9E3779B97F4A7C15 - 2**64
    got = [x % 2**64 for x in mix(torch.arange(3) * step).tolist()]
    assert got == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_the_bonus_follows_the_count() -> None:
    """Eight tables of 7 states with 1 to 64 visits: mean bonus within 10 % of 1 / sqrt(n), each within 40 %."""
    got = []
    for seed in range(8):
        torch.manual_seed(seed)
        cfn = signal(CFN, Discrete(7), DiscreteEncoder, flips=64, dim=32, hidden=64)
        path = torch.tensor([i for i, n in enumerate(COUNTS) for _ in range(n)])
        path = path[torch.randperm(len(path))]
        roll = rollout(path[None])
        assert pay(cfn, roll).mean() == pytest.approx(1.0, abs=0.35), "the prior alone"
        optimizer = torch.optim.Adam(cfn.net.parameters(), 3e-3)
        for _ in range(400):
            optimizer.zero_grad()
            masked_mean(cfn.losses(roll, None)["cfn"], roll.new_steps(roll.mask)).backward()
            optimizer.step()
        with torch.no_grad():
            f = cfn(torch.arange(7))
        flips = coin_flips(roll, 64)[0]
        means = torch.stack([flips[path == i].mean(0) for i in range(7)])
        torch.testing.assert_close(f, means, atol=0.08, rtol=0)
        got.append(f.square().mean(-1).sqrt())
    ratio = torch.stack(got) * torch.tensor(COUNTS).sqrt()
    assert (ratio.mean(0) - 1).abs().max() < 0.1 and (ratio - 1).abs().max() < 0.4


def test_an_unvisited_observation_has_a_bonus_near_one() -> None:
    torch.manual_seed(0)
    cfn, seen = signal(CFN, dim=32, hidden=64), rollout(views([[i % 10 for i in range(101)]]))
    pay(cfn, seen)
    optimizer = torch.optim.Adam(cfn.net.parameters(), 3e-3)
    for _ in range(100):
        optimizer.zero_grad()
        cfn.losses(seen, None)["cfn"].mean().backward()
        optimizer.step()
    old, new = pay(cfn, seen).mean(), pay(cfn, rollout(views([list(range(10))], seed=1))).mean()
    assert old < 0.45 and 0.7 < new < 1.5


def test_flips_belong_to_a_visit() -> None:
    roll = rollout(views([[1, 1, 1, 1], [1, 1, 1, 2]]))
    flips = coin_flips(roll, 64)
    assert flips.shape == (2, 4, 64) and set(flips.unique().tolist()) == {-1.0, 1.0}
    pairs = flips.flatten(0, 1) @ flips.flatten(0, 1).T / 64
    assert (pairs - torch.eye(8)).abs().max() < 0.5, "equal observations, other visits, other flips"
    assert torch.equal(coin_flips(roll[1:], 64), flips[1:]), "whatever the minibatch"
    other = rollout(views([[1, 1, 1, 1]]), [[3, 3, 3, 3]])
    assert not torch.equal(coin_flips(other, 64)[0], flips[0]), "another episode"
    assert torch.equal(coin_flips(cut(roll, 0, 3), 32), flips[..., :32])
    many = coin_flips(
        rollout(torch.zeros(64, 65, dtype=torch.long), torch.arange(64)[:, None].expand(64, 65).tolist()), 32
    )
    assert abs(many.mean()) < 0.01 and many.mean((0, 1)).abs().max() < 0.06


def test_replayed_sequences_have_the_same_flips() -> None:
    torch.manual_seed(0)
    agent, stream, _ = tiny_agent("curiosity=cfn", "data.replay_batch=1", "data.replay_capacity=8", *EASY)
    roll = agent.score(stream.collector.collect())
    stream.replay.add(roll)
    replayed = everything(stream.replay)
    stream.close()
    assert torch.equal(coin_flips(replayed, 32), coin_flips(roll, 32))


def test_first_observations_of_episodes_are_visits() -> None:
    cfn, roll = signal(CFN), rollout(views([[1, 2, 3, 4, 5]]), [[0, 0, 1, 1, 1]])
    error = (cfn(roll.obs) - coin_flips(roll, 32)).square().mean(-1)
    loss, mask = cfn.losses(roll, None)["cfn"], roll.new_steps(roll.mask)
    torch.testing.assert_close(
        loss[mask], torch.stack([error[0, 1] + error[0, 0], error[0, 3] + error[0, 2], error[0, 4]])
    )
    with pytest.raises(ValueError, match=r"curiosity.flips=65"):
        signal(CFN, flips=65)


def test_training_step() -> None:
    agent, (roll, _) = collected("curiosity=cfn", "curiosity.dim=16", "curiosity.hidden=16")
    assert agent.score(roll).rew_int.isfinite().all()
