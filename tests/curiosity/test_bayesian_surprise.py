"""Bayesian surprise: values by hand, its bounds, and noise that stops paying."""

from __future__ import annotations

from math import exp, log

import pytest
import torch
from helpers.by_hand import SPEC, Stub, outputs, rollout

from worldmodel.curiosity import BayesianSurprise
from worldmodel.curiosity.bayesian_surprise import information_gain
from worldmodel.masked import masked_mean


def gain(*weights: float) -> float:
    """log K minus the entropy of normalised weights."""
    shares = [w / sum(weights) for w in weights]
    return log(len(shares)) + sum(p * log(p) for p in shares)


def test_information_by_hand() -> None:
    mean = torch.tensor([[[0.0, 0.0]], [[1.0, 2.0]]])  # two members, one transition, two dimensions
    zero = torch.zeros(2, 1, 2)
    x = torch.zeros(1, 2)
    # densities e^0 and e^(-(1 + 4) / 2)
    assert float(information_gain(x, mean, zero)) == pytest.approx(gain(1.0, exp(-2.5)), rel=1e-5)
    assert float(information_gain(x, mean, zero, per_dimension=True)) == pytest.approx(gain(1, exp(-1.25)), rel=1e-5)
    # variances 1 and 4 at the same mean: densities 1 and 1/2 in each dimension
    wide = torch.stack([zero[0], zero[0] + log(4)])
    assert float(information_gain(x, 0 * mean, wide)) == pytest.approx(gain(1.0, 0.25), rel=1e-5)


def test_members_that_agree_gain_nothing_and_the_bound_is_log_k() -> None:
    x, mean, logvar = torch.randn(5, 3) * 10, torch.randn(5, 3), torch.randn(5, 3)
    same = information_gain(x, mean.expand(4, 5, 3), logvar.expand(4, 5, 3))
    torch.testing.assert_close(same, torch.zeros(5), atol=1e-5, rtol=0)
    apart = torch.arange(4.0)[:, None, None] * 100
    torch.testing.assert_close(information_gain(x, x + apart, torch.zeros(4, 5, 3)), torch.full((5,), log(4)))


def test_reward_and_loss_by_hand() -> None:
    signal = BayesianSurprise(SPEC, members=2, drop=0.0, per_dimension=False)
    roll = rollout([[0.0, 0.0]] * 3, [1, 0])
    out = outputs([[0.0, 0.0], [1.0, 2.0], [1.0, 2.0]])  # changes (1, 2) and (0, 0)
    signal.state, signal.delta = (Stub(lambda x: x) for _ in range(2))
    signal.state.update = signal.delta.update = lambda *args: None
    means = torch.tensor([[0.0, 0.0], [1.0, 2.0]])[:, None, None].expand(2, 1, 2, 2)
    signal.predict = lambda y, roll: (means, torch.zeros(2, 1, 2, 2))
    expected = gain(1.0, exp(-2.5))  # one member is right, the other 5/2 nats away
    torch.testing.assert_close(signal.reward(roll, out), torch.tensor([[expected, expected]]))
    torch.testing.assert_close(signal.losses(roll, out)["bayesian_surprise"], torch.tensor([[2.5, 2.5]]))
    with pytest.raises(ValueError, match=r"curiosity.drop=1.0"):
        BayesianSurprise(SPEC, drop=1.0)


def test_learnt_noise_pays_less_than_what_is_new() -> None:
    """Action 0 leads to noise of unit size, which the members have learnt; action 1 was never done."""
    torch.manual_seed(0)
    signal = BayesianSurprise(SPEC, members=4, hidden=32, layers=2)
    optimizer = torch.optim.Adam(signal.parameters(), 3e-3)

    def noise(rows: int, act: int):
        return rollout([[0.0, 0.0]] * (rows + 1), [act] * rows), outputs(torch.randn(rows + 1, 2).tolist())

    def reward(act: int) -> float:
        with torch.no_grad():
            return float(signal.reward(*noise(500, act)).mean())

    first = reward(0)
    for _ in range(300):
        roll, out = noise(256, 0)
        optimizer.zero_grad()
        masked_mean(signal.losses(roll, out)["bayesian_surprise"], roll.new_steps(roll.mask)).backward()
        optimizer.step()
    known, new = reward(0), reward(1)
    assert known < 0.2 * first and new > 3 * known
