"""The predicted reward is that of rewards, not of their logarithms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worldmodel.model.heads.reward import BINS, RewardHead

ONE = torch.ones(1, 1)


def fitted(rew: Tensor, seen: Tensor | None = None) -> RewardHead:
    """A head that was fitted to rewards (n,) from a constant input, with the range of `seen`."""
    torch.manual_seed(0)
    head = RewardHead(1)
    seen = rew if seen is None else seen
    head.observe(seen, torch.ones_like(seen, dtype=torch.bool))
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = head.nll(head(ONE).expand(len(rew), -1), rew).mean()
        value.backward()
        return value

    optimizer.step(loss)
    return head


def test_a_rare_large_reward_is_predicted_by_its_mean() -> None:
    rew = torch.zeros(1000)
    rew[:10] = 100.0
    head = fitted(rew)
    assert float(head.mean(head(ONE))) == pytest.approx(1.0, abs=0.1)
    mixed = torch.tensor([-3.0, 0.0, 0.5, 7.0]).repeat(100)
    head = fitted(mixed)
    assert float(head.mean(head(ONE))) == pytest.approx(float(mixed.mean()), abs=0.02)


def test_before_any_reward_none_is_predicted() -> None:
    head = RewardHead(1)
    head.observe(torch.tensor([5.0, 0.0]), torch.tensor([False, True]))
    logp = head(ONE)
    assert head.mean(logp).item() == 0.0 and head.nll(logp, torch.zeros(1)).item() == 0.0
    head.nll(logp, torch.zeros(1)).sum().backward()
    assert torch.isfinite(head.out.weight.grad).all()


def test_the_range_is_that_of_the_rewards_seen() -> None:
    head = RewardHead(1)
    head.observe(torch.tensor([-0.2, 3.0]), torch.tensor([True, True]))
    used = head.bins[head(ONE)[0] > -torch.inf]
    assert used[0] <= -0.2 < used[1] and used[-2] < 3.0 <= used[-1] and len(used) < BINS / 4
    before = used.clone()
    head.observe(torch.tensor([0.1]), torch.tensor([True]))
    assert torch.equal(head.bins[head(ONE)[0] > -torch.inf], before)
    beyond = head.nll(head(ONE), torch.tensor([1e9]))
    torch.testing.assert_close(beyond, -head(ONE)[:, head.last])
    head.observe(torch.tensor([-1e9, 1e9]), torch.tensor([True, True]))
    assert (head(ONE) > -torch.inf).all() and torch.isfinite(head.nll(head(ONE), torch.tensor([-1e9]))).all()


def test_the_mean_of_a_reward_between_two_bins_is_the_reward() -> None:
    for rew in (1e-3, 0.955, 42.0, -300.0):
        head = fitted(torch.full((4,), rew))
        assert float(head.mean(head(ONE))) == pytest.approx(rew, rel=1e-2)
