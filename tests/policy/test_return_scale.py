"""Units of the extrinsic return: by hand, for any unit of the reward, and rescaled without a change of the value."""

from __future__ import annotations

import math
from functools import cache

import gymnasium as gym
import pytest
import torch
from helpers.experience import CHAIN, DREAM
from helpers.tiny import minibatches, tiny_agent
from torch import Tensor

from worldmodel.errors import SettingError
from worldmodel.learner.run_episodes import freeze
from worldmodel.policy import ReturnScale
from worldmodel.training.build import build_module
from worldmodel.training.module import rescale_moments

NO = torch.zeros(2, 3, dtype=torch.bool)
REW = torch.tensor([[1.0, 2.0, 4.0], [0.0, 8.0, 64.0]])
END = torch.tensor([[False, False, False], [False, True, False]])
MASK = torch.tensor([[True, True, True], [True, True, False]])
SUMS = [1.0, 2.5, 5.25, 0.0, 8.0]  # discount 0.5; the last row of the second is a reset, whose reward does not count


def spread(sums: list[float]) -> float:
    mean = sum(sums) / len(sums)
    return math.sqrt(sum((x - mean) ** 2 for x in sums) / len(sums))


def test_the_scale_is_the_spread_of_the_discounted_return() -> None:
    scale = ReturnScale(2, clip=None)
    assert float(scale.update(0 * REW, NO, ~NO, 0.5)) == 1 and float(scale.scale) == 1, "no reward so far"
    scale = ReturnScale(2, clip=None)
    assert float(scale.update(REW, END, MASK, 0.5)) == 1, "values have no unit before the first reward"
    assert float(scale.scale) == pytest.approx(spread(SUMS))
    torch.testing.assert_close(scale(REW), REW / spread(SUMS))
    assert scale.sum.tolist() == [5.25, 0.0]
    more = torch.tensor([[1.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    over = torch.tensor([[False, False, True], [False, False, False]])
    ratio = scale.update(more, over, ~NO, 0.5)  # the first goes on, the second begins again
    both = [*SUMS, 3.625, 1.8125, 0.90625, 2.0, 1.0, 0.5]
    assert float(scale.scale) == pytest.approx(spread(both)) and float(ratio) == pytest.approx(
        spread(SUMS) / spread(both)
    )
    assert scale.sum.tolist() == [0.0, 0.5], "a last step ends the sum"


def test_scaled_rewards_are_clipped_in_their_units() -> None:
    scale = ReturnScale(2, clip=1.5)
    scale.update(REW, END, MASK, 0.5)
    bound = 1.5 * spread(SUMS)
    torch.testing.assert_close(scale(10 * REW - 10), (10 * REW - 10).clamp(-bound, bound) / spread(SUMS))
    off = ReturnScale(2, normalise=False, clip=1.5)
    assert float(off.update(REW, END, MASK, 0.5)) == 1 and torch.equal(off(REW), REW)


def test_a_constant_return_is_not_amplified_without_bound() -> None:
    scale, ones = ReturnScale(2), torch.full((2, 3), 0.3)
    scale.update(ones, ~NO, ~NO, 0.0)  # episodes of one step
    assert float(scale.scale) == pytest.approx(0.3e-3) and float(scale(ones).max()) == 10.0


@pytest.mark.parametrize("key", ["clip", "horizon"])
def test_settings_out_of_range(key: str) -> None:
    with pytest.raises(SettingError, match=f"policy.return_scale.{key}=0: allowed are"):
        ReturnScale(1, **{key: 0})


@pytest.mark.parametrize("factor", [0.01, 2.0**-7, 2.0**7, 100.0])
def test_scaled_rewards_do_not_depend_on_the_unit(factor: float) -> None:
    one, other = ReturnScale(4), ReturnScale(4)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        rew = torch.randn(4, 16, generator=generator) + 0.5
        over = torch.rand(4, 16, generator=generator) < 0.2
        mask = torch.cat([torch.ones(4, 1, dtype=torch.bool), ~over[:, :-1]], 1)
        ratios = [scale.update(x, over, mask, 0.99) for scale, x in ((one, rew), (other, factor * rew))]
        close = {"rtol": 0, "atol": 0} if math.log2(factor).is_integer() else {"rtol": 2e-6, "atol": 1e-7}
        torch.testing.assert_close(other(factor * rew), one(rew), **close)
        torch.testing.assert_close(ratios[1], ratios[0], **close)


class Scaled(gym.RewardWrapper):
    """CartPole with a bonus for the angle, and rewards in another unit."""

    def __init__(self, factor: float = 1.0, **kwargs: object):
        super().__init__(gym.make("CartPole-v1", **kwargs))
        self.factor = factor

    def reward(self, reward: float) -> float:
        return self.factor * (reward + round(float(self.unwrapped.state[2]), 3))


gym.register("ScaledCartPole-v0", Scaled)
SHORT = ["env=cartpole", "env.id=ScaledCartPole-v0", "encoder=mlp", "encoder.hidden=[16]", "weights.rew=0"]


@cache
def trained(factor: float, updates: int = 4) -> tuple[list[Tensor], list[Tensor]]:
    """Actions and returns of a few updates with rewards in a unit. The reward's own prediction is left out."""
    torch.manual_seed(0)
    agent, stream, cfg = tiny_agent(*SHORT, f"+env.factor={factor}")
    module = build_module(cfg, agent)
    optimizer = module.configure_optimizers()["optimizer"]
    acts, returns = [], []
    for _ in range(updates):
        for i, batch in enumerate(minibatches(agent, stream, cfg)):
            if i == 0:
                acts.append(batch.policy.act)
                returns.append(batch.policy.ret_ext)
            if batch.value_ratio is not None:
                rescale_moments([optimizer], module.value_head, torch.stack([batch.value_ratio, torch.ones(())]))
            optimizer.zero_grad()
            agent.weighted_sum(agent.losses(batch).terms).backward()
            module.configure_gradient_clipping(optimizer, 1.0, "norm")
            optimizer.step()
    stream.close()
    assert float(agent.return_scale.scale) != 1
    return acts, returns


@pytest.mark.parametrize("factor", [0.01, 2.0**-7, 100.0])
def test_training_does_not_depend_on_the_unit_of_the_reward(factor: float) -> None:
    acts, returns = trained(1.0)
    for one, other in zip(acts, trained(factor)[0], strict=True):
        assert torch.equal(one, other)
    if math.log2(factor).is_integer():
        assert all(torch.equal(a, b) for a, b in zip(returns, trained(factor)[1], strict=True))


def test_a_change_of_the_scale_leaves_values_in_the_unit_of_the_reward_as_they_are() -> None:
    torch.manual_seed(0)
    agent, stream, _ = tiny_agent(*SHORT)
    agent.score(stream.collector.collect())  # the scale becomes known
    roll = stream.collector.collect()
    seen = agent.policy.see(roll.new_steps(roll.obs), roll.z)
    old, before = agent.return_scale.scale, agent.policy(roll.h, seen)[1].detach()
    scored = agent.score(roll)
    stream.close()
    after, new = agent.policy(roll.h, seen)[1].detach(), agent.return_scale.scale
    assert old != new
    torch.testing.assert_close(after[..., 0] * new, before[..., 0] * old)
    assert torch.equal(after[..., 1], before[..., 1])
    torch.testing.assert_close(scored.value_ext[:, :-1], after[..., 0])
    torch.testing.assert_close(scored.value_ext * new, roll.value_ext * old)
    assert torch.equal(scored.rew_ext, roll.rew_ext), "the world model predicts rewards in their own unit"


def test_moments_follow_the_rescaled_head() -> None:
    """The next step is that of a head whose gradients were in the new units all along."""
    grads, factors = torch.randn(2, 2, 3), torch.tensor([0.25, 1.0])
    steps = []
    for units in ((torch.ones(2), factors), (factors, factors)):
        head = torch.nn.Parameter(torch.zeros(2, 3))
        optimizer = torch.optim.Adam([head], lr=0.1, eps=0.0)
        for i in range(2):
            if units[i] is not units[i - 1] and i:
                rescale_moments([optimizer], [head], factors)
            before, head.grad = head.detach().clone(), grads[i] * units[i][:, None]
            optimizer.step()
        steps.append((head - before).detach())
    torch.testing.assert_close(steps[0], steps[1])


def test_imagined_rewards_are_in_the_same_units() -> None:
    torch.manual_seed(0)
    agent, stream, cfg = tiny_agent(*CHAIN, *DREAM, "policy.objective.lam=1.0")
    agent.return_scale.std.fill_(0.5)
    agent.imagination.horizon = 1
    batch = next(iter(minibatches(agent, stream, cfg)))
    stream.close()
    roll, scale = batch.policy, agent.return_scale.scale
    rew, end = roll.rew_ext[:, 0], roll.end[:, 0]
    expected = (rew / scale).clamp(-10, 10) + agent.objective.gamma_ext * ~end * roll.value_ext[:, 1]
    assert scale != 1 and rew.abs().sum() > 0
    torch.testing.assert_close(roll.ret_ext[:, 0], expected)


def test_evaluation_keeps_the_scale() -> None:
    agent, stream, _ = tiny_agent(*SHORT)
    agent.score(stream.collector.collect())
    scale = agent.return_scale.scale
    freeze(agent, 4)
    agent.score(stream.collector.collect())
    stream.close()
    assert torch.equal(agent.return_scale.scale, scale)
