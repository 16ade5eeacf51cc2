"""A policy that is planned: what each action is worth, by hand, and where it leads."""

from __future__ import annotations

import gymnasium as gym
import pytest
import torch
from helpers.experience import CHAIN, DREAM
from helpers.tiny import tiny_agent

from worldmodel.curiosity.none import NoCuriosity
from worldmodel.errors import ConfigError
from worldmodel.learner.value_iteration import Plan
from worldmodel.training.config import bad_input

PLAN = [*(x for x in DREAM if x != "policy=imagined"), "policy=planned", "policy.imagination.horizon=1"]


def planner(*overrides: str):
    """An agent of the chain of 6 whose model is sure: action 1 goes right, 0 left, and nothing ends."""
    torch.manual_seed(0)
    agent, data, _ = tiny_agent(*CHAIN, *PLAN, "reward.normalise=none", "reward.scale=1.0", *overrides)
    agent.model.imagine = lambda h, act, obs: (obs + 2 * act - 1).clamp(0, 5)
    torch.nn.init.zeros_(agent.model.heads.outcome.weight)
    agent.model.heads.outcome.bias.data = torch.tensor([0.0, -50.0])  # pays nothing, doesn't end
    roll = agent.score(data.collector.collect())
    data.replay.add(roll)
    data.env.close()
    return agent, data.replay.sample(16, agent.device)[0]


@torch.no_grad()
def test_what_an_action_is_worth(monkeypatch) -> None:
    """What it pays and what the values say of where it leads, as far as that is known and if the episode goes on."""
    agent, past = planner(
        "policy.objective.gamma_int=0.9", "policy.objective.gamma_ext=0.8", "policy.objective.weight_ext=2.0"
    )
    agent.model.heads.outcome.bias.data = torch.tensor(
        [torch.tensor(3.0).log1p(), 0.0]
    )  # pays 3, ends every other time
    monkeypatch.setattr(
        agent.curiosity, "predict_reward", lambda roll, out: roll.act[:, :1].float()
    )  # all to the right is new
    agent.curiosity.max_reward = 1.0
    params, values = torch.tensor([1.0, 3.0]).log(), torch.tensor([10.0, 20.0])
    monkeypatch.setattr(
        agent.policy, "forward", lambda h, z: (params.expand(*h.shape[:-1], 2), values.expand(*h.shape[:-1], 2))
    )
    agent.policy.temperature.fill_(0.5)  # goes left in 1 of 10, where its numbers say 1 of 4
    roll = agent.imagination.rollout(agent, past)
    left = 2 * (3 + 0.8 * 0.5 * 10) + (0 + 0.9 * 0.5 * 20)
    right = 2 * 3 + 1  # where it leads isn't known
    torch.testing.assert_close(roll.worth, torch.tensor([left, right]).expand(16, 1, 2))
    torch.testing.assert_close(roll.ret_ext, torch.full((16, 1), 0.1 * 7 + 0.9 * 3))
    torch.testing.assert_close(roll.ret_int, torch.full((16, 1), 0.1 * 9 + 0.9 * 1))
    losses = agent.objective.losses(agent.policy, roll.h, roll.z, roll)
    torch.testing.assert_close(losses["policy"], torch.full((16, 1), 4.0).log())  # a quarter for what is wanted
    torch.testing.assert_close(losses["value"], torch.full((16, 1), 0.5 * ((10 - 3.4) ** 2 + (20 - 1.8) ** 2)))


@torch.no_grad()
def test_all_actions_are_tried_at_the_same_moment(monkeypatch) -> None:
    """However much the imagination wavers on the way there."""
    agent, past = planner("policy.imagination.horizon=6", "memory=transformer")
    seen, step = [], agent.model.memory.step
    monkeypatch.setattr(agent.model, "imagine", lambda h, act, obs: torch.randint(6, obs.shape))
    monkeypatch.setattr(agent.model.memory, "step", lambda x, *rest: seen.append(h := step(x, *rest)) or h)
    for _ in range(5):
        seen.clear()
        roll = agent.imagination.rollout(agent, past)
        assert roll.mask.shape == (16, 2) and roll.mask[:, 0].any()
        for h in seen[:-1]:
            torch.testing.assert_close(h[::2], h[1::2])
        if len(seen) > 1:
            torch.testing.assert_close(roll.h[:, 0], seen[-2][::2])


@torch.no_grad()
def test_a_life_that_ended_on_the_way_is_left_out() -> None:
    agent, past = planner("policy.imagination.horizon=9")
    agent.model.heads.outcome.bias.data[1] = 50.0
    shares = [float(agent.imagination.rollout(agent, past).mask[:, 0].float().mean()) for _ in range(20)]
    assert 0.0 in shares and max(shares) > 0.5  # only those that begin at once are left


def test_the_policy_goes_where_it_pays(monkeypatch) -> None:
    """Value iteration: the values come to .9^distance, and from all five other places the policy goes there."""
    agent, past = planner("policy.objective.gamma_int=0.9", "policy.actor.reads_memory=false")
    past.obs[:] = torch.arange(6).repeat(16)[:16, None]
    past.mask[:] = True

    def predict_reward(roll, out):
        return ((roll.obs[:, :1] == 5) & (roll.act[:, :1] == 1)).float()

    monkeypatch.setattr(agent.curiosity, "predict_reward", predict_reward)
    agent.curiosity.max_reward = 1.0
    agent.imagination.passes = 600
    optimizer = torch.optim.Adam(agent.policy.parameters(), lr=3e-3)
    for roll in agent.imagination.rollouts(agent, past):
        losses = agent.objective.losses(agent.policy, roll.h, roll.z, roll)
        optimizer.zero_grad()
        (losses["policy"] + losses["value"]).mean().backward()
        optimizer.step()
    with torch.no_grad():
        params, values = agent.policy(torch.zeros(6, roll.h.shape[-1]), agent.policy.see(torch.arange(6), None))
    torch.testing.assert_close(values[:, 1], 0.9 ** torch.arange(5.0, -1, -1), atol=0.15, rtol=0)
    assert (agent.policy.dist.log_probs(params, 1.0)[:, 1].exp() > 0.9).all()


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["policy.objective.target_temperature=0"], "policy.objective.target_temperature=0: must be above 0"),
        (["policy.imagination.horizon=0"], "policy.imagination.horizon=0: allowed are whole numbers from 1"),
        (["heads=none"], "policy.dream with heads=none: allowed is true"),
    ],
)
def test_what_a_plan_needs(overrides: list[str], words: str) -> None:
    key = overrides[0].split("=")[0]
    with pytest.raises(ConfigError, match=words), bad_input():
        tiny_agent(*CHAIN, *(x for x in PLAN if not x.startswith(key)), *overrides)


def test_actions_that_cannot_all_be_tried() -> None:
    with pytest.raises(ValueError, match=r"policy=plan with actions Box.*: allowed are Discrete"):
        Plan().check(gym.spaces.Box(-1, 1, (2,)), NoCuriosity())


def test_a_signal_without_a_limit() -> None:
    with (
        pytest.raises(ConfigError, match=r"policy=plan with curiosity Disagreement, .*: allowed are max, none"),
        bad_input(),
    ):
        tiny_agent(*CHAIN, *(x for x in PLAN if not x.startswith("curiosity")), "curiosity=disagreement")
