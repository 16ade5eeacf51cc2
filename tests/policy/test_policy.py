"""Discrete distributions against torch.distributions; temperature, bias to the null action, gain of the memory."""

import gymnasium as gym
import pytest
import torch
from torch import distributions as D

from worldmodel.policy import ActorCritic
from worldmodel.policy.distributions import make_distribution

DISCRETE = gym.spaces.Discrete(5)
MULTI = gym.spaces.MultiDiscrete([3, 4])


def test_categorical_agrees_with_torch() -> None:
    dist, params = make_distribution(DISCRETE), torch.randn(7, 5)
    act, logp = dist.sample(params, 2.0)
    oracle = D.Categorical(logits=params / 2.0)
    torch.testing.assert_close(logp, oracle.log_prob(act))
    again, entropy = dist.evaluate(params, act, 2.0)
    torch.testing.assert_close(again, logp)
    torch.testing.assert_close(entropy, oracle.entropy())


def test_sampling_has_the_right_frequencies() -> None:
    torch.manual_seed(0)
    params = torch.tensor([0.0, 1.0, 2.0]).expand(20_000, 3)
    act, _ = make_distribution(gym.spaces.Discrete(3)).sample(params, 1.0)
    torch.testing.assert_close(act.bincount() / 20_000, params[0].softmax(0), atol=0.015, rtol=0)


def test_multi_categorical_is_a_product() -> None:
    dist, params = make_distribution(MULTI), torch.randn(6, 7)
    act, logp = dist.sample(params, 1.0)
    assert act.shape == (6, 2)
    parts = [D.Categorical(logits=p) for p in params.split([3, 4], -1)]
    torch.testing.assert_close(logp, sum(p.log_prob(a) for p, a in zip(parts, act.unbind(-1), strict=True)))
    torch.testing.assert_close(dist.evaluate(params, act, 1.0)[1], sum(p.entropy() for p in parts))


def test_null_bias_is_a_propensity_to_do_nothing() -> None:
    plain, lazy = make_distribution(DISCRETE), make_distribution(DISCRETE, null_action=2, null_bias=2.0)
    params, two = torch.zeros(1, 5), torch.tensor([2])
    odds = [torch.exp(d.evaluate(params, two, 1.0)[0]) for d in (plain, lazy)]
    odds = [p / (1 - p) for p in odds]
    torch.testing.assert_close(odds[1] / odds[0], torch.tensor([2.0]).exp())
    with pytest.raises(ValueError, match="null_action"):
        make_distribution(DISCRETE, null_bias=1.0)


def test_temperature_anneals_linearly() -> None:
    policy = ActorCritic(8, (4,), DISCRETE, temperature=3.0, temperature_end=1.0, anneal=0.5)
    for progress, value in ((0.0, 3.0), (0.25, 2.0), (0.5, 1.0), (1.0, 1.0)):
        policy.anneal(progress)
        assert policy.temperature == value
    with pytest.raises(ValueError, match="temperature=0"):
        ActorCritic(8, (4,), DISCRETE, temperature=0.0)


def test_a_policy_gives_the_action_and_both_values() -> None:
    params, values = ActorCritic(8, (4,), DISCRETE)(torch.randn(3, 2, 8), torch.randn(3, 2, 4))
    assert params.shape == (3, 2, 5) and values.shape == (3, 2, 2)


def test_a_policy_without_memory_ignores_h() -> None:
    policy = ActorCritic(8, (4,), DISCRETE, reads_memory=False)
    z = torch.randn(3, 4)
    torch.testing.assert_close(policy(torch.randn(3, 8), z), policy(torch.randn(3, 8), z))


def test_a_gain_of_zero_grows_where_the_memory_is_useful() -> None:
    torch.manual_seed(0)
    policy, h, z = ActorCritic(8, (4,), DISCRETE, memory_gain=0.0), torch.randn(64, 8), torch.zeros(64, 4)
    optimizer = torch.optim.Adam(policy.parameters(), 1e-2)
    for _ in range(200):  # the value to learn is in h alone
        loss = (policy(h, z)[1][:, 0] - h[:, 0]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert abs(float(policy.memory_gain)) > 0.1 and loss < 0.1


def test_gain_of_the_memory_scales_h_alone() -> None:
    policy = ActorCritic(8, (4,), DISCRETE, memory_gain=0.25)
    h, z = torch.randn(3, 8), torch.randn(3, 4)
    x = torch.cat([h / 4, z], 1)
    actor, critic = (torch.nn.functional.gelu(trunk(x)) for trunk in (policy.actor_trunk, policy.critic_trunk))
    torch.testing.assert_close(policy(h, z), (policy.actor(actor), policy.critic(critic)))


def test_each_parameter_belongs_to_one_part() -> None:
    policy = ActorCritic(8, (4,), DISCRETE, own_encoder=True, make_encoder=lambda: torch.nn.Linear(3, 4))
    parts = policy.parts()
    names = {id(p): name for name, p in policy.named_parameters()}
    assert sorted(names[id(p)] for part in parts.values() for p in part) == sorted(names.values())
    assert {names[id(p)] for p in parts["policy_encoder"]} == {"memory_gain", "encoder.weight", "encoder.bias"}
    assert {names[id(p)].split(".")[0] for p in parts["critic"]} == {"critic_trunk", "critic"}
