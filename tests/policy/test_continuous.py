"""Distributions of Box actions: probabilities against torch.distributions, bounds, whole numbers, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor
from torch import distributions as D

from worldmodel.envs.unit_box import UnitBox
from worldmodel.errors import SettingError
from worldmodel.policy import ActorCritic, RandomPolicy
from worldmodel.policy.distributions import make_distribution

INF = np.inf
BOUNDED = UnitBox(Box(10, 20, (2, 3), np.float32))
MIXED = UnitBox(Box(np.float32([10, 0, -INF, -INF]), np.float32([20, INF, 5, INF])))
WHOLE = UnitBox(Box(0, 4, (2,), np.int64))
FAMILIES = ("gaussian", "tanh", "beta")


def drawn(space: Box, count: int = 64, temperature: float = 1.0, **options: object) -> tuple:
    """A distribution, parameters of `count` rows, a sample and its log-probability."""
    torch.manual_seed(0)
    dist = make_distribution(space, **options)
    params = torch.randn(count, dist.size)
    with torch.no_grad():
        return dist, params, *dist.sample(params, temperature)


@pytest.mark.parametrize("noise", ["learned", "fixed"])
def test_gaussian_agrees_with_torch(noise: str) -> None:
    dist, params, sample, logp = drawn(BOUNDED, distribution="gaussian", noise=noise, std=0.5, temperature=2.0)
    oracle = D.Independent(D.Normal(params, 1.0), 1)
    torch.testing.assert_close(logp, oracle.log_prob(sample.flatten(1)))
    again, entropy = dist.evaluate(params, sample, 2.0)
    torch.testing.assert_close(again, logp)
    torch.testing.assert_close(entropy, oracle.entropy())
    act = dist.execute(sample)
    assert (sample.abs() > 1).any() and torch.equal(act, sample.clamp(-1, 1))
    assert len(list(dist.parameters())) == (noise == "learned")


def test_tanh_agrees_with_torch() -> None:
    dist, params, sample, logp = drawn(BOUNDED, distribution="tanh", std=0.5, temperature=2.0)
    squashed = D.TransformedDistribution(D.Normal(params.double(), 1.0), D.TanhTransform(cache_size=1))
    oracle = squashed.log_prob(sample.flatten(1).double().tanh()).sum(-1)
    torch.testing.assert_close(logp.double(), oracle, atol=1e-3, rtol=1e-4)  # the oracle inverts tanh
    torch.testing.assert_close(dist.evaluate(params, sample, 2.0)[0], logp)
    torch.testing.assert_close(dist.execute(sample), sample.tanh())


@torch.no_grad()
def test_tanh_by_hand() -> None:
    dist = make_distribution(UnitBox(Box(0, 1, (1,), np.float32)), distribution="tanh")
    mean, u = torch.tensor([[0.5]]), torch.tensor([[1.0]])
    logp, entropy = dist.evaluate(mean, u, 1.0)
    slope = math.log(1 - math.tanh(1.0) ** 2)
    assert float(logp) == pytest.approx(-0.125 - 0.5 * math.log(2 * math.pi) - slope, abs=1e-6)
    assert float(entropy) == pytest.approx(0.5 * math.log(2 * math.pi) + 0.5 + slope, abs=1e-6)
    far = torch.tensor([[40.0]])  # tanh is 1 in float32; log(1 - tanh^2) = 2 (log 2 - u)
    assert float(dist.evaluate(far, far, 1.0)[0]) == pytest.approx(-0.5 * math.log(2 * math.pi) + 80 - 2 * math.log(2))


def test_entropy_of_tanh_is_that_of_its_actions() -> None:
    """Value and gradients, against numerical integration."""
    dist, n = make_distribution(UnitBox(Box(0, 1, (1,), np.float32)), distribution="tanh", std=0.7), 100_000
    torch.manual_seed(0)
    mean = torch.full((1,), 0.8, requires_grad=True)
    params = mean.expand(n, 1)
    sample, _ = dist.sample(params.detach(), 1.0)
    estimate = dist.evaluate(params, sample, 1.0)[1].mean()
    estimate.backward()
    estimate = estimate.detach()

    def exact(m: float, std: float) -> float:
        u = np.linspace(m - 9 * std, m + 9 * std, 20_001)
        p = np.exp(-0.5 * ((u - m) / std) ** 2) / (std * np.sqrt(2 * np.pi))
        logp = -0.5 * ((u - m) / std) ** 2 - np.log(std * np.sqrt(2 * np.pi)) - np.log(1 - np.tanh(u) ** 2)
        return float(-(p * logp).sum() * (u[1] - u[0]))

    assert float(estimate) == pytest.approx(exact(0.8, 0.7), abs=0.01)
    assert float(mean.grad) == pytest.approx((exact(0.81, 0.7) - exact(0.79, 0.7)) / 0.02, abs=0.02)
    by_log_std = (exact(0.8, 0.7 * math.exp(0.01)) - exact(0.8, 0.7 * math.exp(-0.01))) / 0.02
    assert float(dist.log_std.grad) == pytest.approx(by_log_std, abs=0.02)


def test_beta_agrees_with_torch() -> None:
    dist, params, sample, logp = drawn(BOUNDED, distribution="beta", temperature=2.0)
    alpha, beta = (1 + torch.nn.functional.softplus(params) / 2).chunk(2, -1)
    scaled = D.TransformedDistribution(D.Beta(alpha, beta), D.AffineTransform(-1, 2))
    act = dist.execute(sample)
    torch.testing.assert_close(logp, scaled.log_prob(act.flatten(1)).sum(-1), atol=1e-3, rtol=1e-4)
    again, entropy = dist.evaluate(params, sample, 2.0)
    torch.testing.assert_close(again, logp)
    torch.testing.assert_close(entropy, (D.Beta(alpha, beta).entropy() + math.log(2)).sum(-1))
    assert ((sample > 0) & (sample < 1)).all() and act.shape == (64, 2, 3)


def test_beta_by_hand() -> None:
    """alpha = 2, beta = 3: p(b) = 12 b (1 - b)^2, largest at b = 1/3."""
    dist = make_distribution(UnitBox(Box(0, 1, (1,), np.float32)), distribution="beta")
    params = torch.tensor([[1.0, 2.0]]).expm1().log()  # softplus gives 1 and 2
    logp, _ = dist.evaluate(params, torch.tensor([[0.25]]), 1.0)
    assert float(logp) == pytest.approx(math.log(12 * 0.25 * 0.75**2 / 2), abs=1e-5)
    assert float(dist.execute(dist.mode(params))) == pytest.approx(2 / 3 - 1, abs=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("space", [BOUNDED, MIXED, WHOLE, UnitBox(Box(-2, 2, (), np.float32))], ids=str)
def test_actions_are_within_the_bounds(family: str, space: UnitBox) -> None:
    if family == "beta" and space is MIXED:
        pytest.skip("refused")
    for extreme in (1.0, 200.0):
        dist = make_distribution(space, distribution=family)
        params = extreme * torch.randn(500, dist.size)
        for sample in (dist.sample(params, 1.0)[0], dist.mode(params)):
            act = dist.execute(sample)
            assert act.shape == (500, *space.shape)
            assert all(space.contains(x) for x in act.numpy())
            assert all(space.raw.contains(x) for x in space.to_raw(act.numpy()))
            logp, entropy = dist.evaluate(params, sample, 1.0)
            assert logp.isfinite().all() and entropy.isfinite().all()


def test_tanh_squashes_only_where_both_bounds_exist() -> None:
    dist = make_distribution(MIXED, distribution="tanh")
    sample = torch.tensor([[2.0, -3.0, 3.0, 4.0]])
    torch.testing.assert_close(dist.execute(sample), torch.tensor([[math.tanh(2.0), -1.0, 1.0, 4.0]]))
    slope = math.log(1 - math.tanh(2.0) ** 2)
    expected = D.Normal(0.0, 1.0).log_prob(sample).sum(-1) - slope
    torch.testing.assert_close(dist.evaluate(torch.zeros(1, 4), sample, 1.0)[0], expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_whole_numbers_are_executed_as_such(family: str) -> None:
    dist, _, sample, _ = drawn(WHOLE, 2000, distribution=family)
    act = dist.execute(sample)
    assert set(act.flatten().tolist()) == {-1.0, -0.5, 0.0, 0.5, 1.0}
    raw = WHOLE.to_raw(act.numpy())
    np.testing.assert_array_equal(act.numpy(), raw / 2 - 1)
    np.testing.assert_array_equal(raw, WHOLE.to_raw(dist._squash(sample).numpy()), "the nearest whole number")


@pytest.mark.parametrize("family", ["gaussian", "tanh"])
def test_without_noise_the_action_is_the_mean(family: str) -> None:
    dist, params, sample, logp = drawn(BOUNDED, noise="none", distribution=family)
    torch.testing.assert_close(sample.flatten(1), params)
    assert (logp == 0).all() and (dist.evaluate(params, sample, 1.0)[1] == 0).all()
    expected: Tensor = params.tanh() if family == "tanh" else params.clamp(-1, 1)
    torch.testing.assert_close(dist.execute(sample).flatten(1), expected)


def test_refusals_are_one_line() -> None:
    for space, options, line in (
        (BOUNDED, {"distribution": "cauchy"}, "policy.actor.distribution=cauchy: allowed are gaussian, tanh, beta"),
        (BOUNDED, {"noise": "some"}, "policy.actor.noise=some: allowed are learned, fixed, none"),
        (
            *(BOUNDED, {"distribution": "beta", "noise": "fixed"}),
            "policy.actor.noise=fixed: allowed with policy.actor.distribution=beta is learned",
        ),
        (
            *(MIXED, {"distribution": "beta"}),
            "policy.actor.distribution=beta: allowed are gaussian and tanh, because dimension 1 of the actions Box",
        ),
    ):
        with pytest.raises(SettingError) as error:
            make_distribution(space, **options)
        assert str(error.value).startswith(line) and "\n" not in str(error.value)


@pytest.mark.parametrize("greedy", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_policy_returns_the_action_and_what_it_was_drawn_from(family: str, greedy: bool) -> None:
    torch.manual_seed(0)
    policy = ActorCritic(4, (4,), WHOLE, hidden=8, distribution=family)
    with torch.no_grad():
        act, sample, logp, _ = policy.act(torch.randn(50, 4), torch.randn(50, 4), greedy)
    torch.testing.assert_close(act, policy.dist.execute(sample))
    assert all(WHOLE.contains(x) for x in act.numpy()) and (logp == 0).all() == greedy
    assert not torch.equal(act, sample)


def test_random_actions_are_uniform_over_whole_numbers() -> None:
    torch.manual_seed(0)
    x = torch.randn(20_000, 4)
    act = RandomPolicy(4, (4,), UnitBox(Box(0, 2, (1,), np.int64)), hidden=8).act(x, x).act
    shares = [(act == value).float().mean().item() for value in (-1, 0, 1)]
    np.testing.assert_allclose(shares, 1 / 3, atol=0.02)
