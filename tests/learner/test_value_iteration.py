"""Value iteration on imagined steps: action values by hand, and the policy that follows from them."""

from __future__ import annotations

import gymnasium as gym
import pytest
import torch
from helpers.by_hand import SPEC
from helpers.experience import CHAIN, DREAM
from helpers.tiny import joint_loss, tiny_agent

from worldmodel.curiosity.none import NoCuriosity
from worldmodel.errors import ConfigError
from worldmodel.learner.value_iteration import ImaginedValueIteration
from worldmodel.training.config import bad_input
from worldmodel.types import Minibatch

PLAN = [*(x for x in DREAM if x != "policy=imagined"), "policy=planned", "policy.imagination.horizon=1"]
SHORT = ["data.context=0", "data.rollout_length=4"]


def planner(*overrides: str):
    """An agent of the chain of 6 with a deterministic model: action 1 goes right, 0 left, and nothing ends."""
    torch.manual_seed(0)
    agent, stream, _ = tiny_agent(*CHAIN, *PLAN, "reward.normalise=none", "reward.scale=1.0", *overrides)
    agent.model.imagine = lambda h, act, obs: (obs + 2 * act - 1).clamp(0, 5)
    torch.nn.init.zeros_(agent.model.heads["dynamics"].end.weight)
    agent.model.heads["dynamics"].end.bias.data = torch.tensor([-50.0])  # no end
    roll = agent.score(stream.collector.collect())
    reward = agent.model.heads["dynamics"].reward
    reward.first.copy_(reward.bins.abs().argmin())  # no reward
    reward.last.copy_(reward.first)
    stream.replay.add(roll)
    past, _ = stream.replay.sample(16, agent.device)
    stream.close()
    return agent, past


@torch.no_grad()
def test_action_values_by_hand(monkeypatch) -> None:
    """The predicted reward, and the value of the next state weighted by its familiarity and by the chance to go on."""
    agent, past = planner(
        "policy.objective.gamma_int=0.9", "policy.objective.gamma_ext=0.8", "policy.objective.weight_ext=2.0"
    )
    # a reward of 3, which is 6 in units of the return scale, and an end with a probability of 1/2
    agent.return_scale.std.fill_(0.5)
    head = agent.model.heads["dynamics"]
    head.reward.bins[head.reward.first], head.end.bias.data = 3.0, torch.tensor([0.0])
    # all to the right is new
    monkeypatch.setattr(agent.curiosity, "predict_reward", lambda roll, out: roll.act[:, :1].float())
    agent.curiosity.max_reward = 1.0
    params, values = torch.tensor([1.0, 3.0]).log(), torch.tensor([10.0, 20.0])
    monkeypatch.setattr(
        agent.policy, "forward", lambda h, z: (params.expand(*h.shape[:-1], 2), values.expand(*h.shape[:-1], 2))
    )
    agent.policy.temperature.fill_(0.5)  # goes left in 1 of 10; in 1 of 4 at a temperature of 1
    roll = agent.imagination.rollout(agent, past)
    left = 2 * (6 + 0.8 * 0.5 * 10) + (0 + 0.9 * 0.5 * 20)
    right = 2 * 6 + 1  # the next state is unknown
    torch.testing.assert_close(roll.q_values, torch.tensor([left, right]).expand(16, 1, 2))
    torch.testing.assert_close(roll.ret_ext, torch.full((16, 1), 0.1 * 10 + 0.9 * 6))
    torch.testing.assert_close(roll.ret_int, torch.full((16, 1), 0.1 * 9 + 0.9 * 1))
    losses = agent.objective.losses(agent.policy, roll.h, roll.z, roll)
    torch.testing.assert_close(
        losses["policy"], torch.full((16, 1), 4.0).log()
    )  # the policy has a probability of 1/4 for the target
    torch.testing.assert_close(losses["value"], torch.full((16, 1), 0.5 * ((10 - 6.4) ** 2 + (20 - 1.8) ** 2)))


@torch.no_grad()
def test_all_actions_are_tried_at_the_same_state(monkeypatch) -> None:
    """Also where the imagined steps that lead to the state are random."""
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
def test_a_rollout_that_ended_on_the_way_is_masked() -> None:
    agent, past = planner("policy.imagination.horizon=9")
    agent.model.heads["dynamics"].end.bias.data[0] = 50.0
    shares = [float(agent.imagination.rollout(agent, past).mask[:, 0].float().mean()) for _ in range(20)]
    assert 0.0 in shares and max(shares) > 0.5  # only states without imagined steps before them are left


def test_the_policy_goes_where_it_pays(monkeypatch) -> None:
    """Value iteration: the values reach 0.9^distance, and the policy goes there from all five other places."""
    agent, past = planner(*SHORT, "policy.objective.gamma_int=0.9", "policy.actor.reads_memory=false")
    past.obs[:] = torch.arange(6).repeat(16)[:16, None]
    past.mask[:] = True

    def predict_reward(roll, out):
        return ((roll.obs[:, :1] == 5) & (roll.act[:, :1] == 1)).float()

    monkeypatch.setattr(agent.curiosity, "predict_reward", predict_reward)
    agent.curiosity.max_reward = 1.0
    optimizer = torch.optim.Adam(agent.policy.parameters(), lr=1e-2)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=300)
    for _ in range(300):
        roll = agent.imagination.rollout(agent, past)
        losses = agent.objective.losses(agent.policy, roll.h, roll.z, roll)
        optimizer.zero_grad()
        (losses["policy"] + losses["value"]).mean().backward()
        optimizer.step()
        decay.step()
    with torch.no_grad():
        params, values = agent.policy(torch.zeros(6, roll.h.shape[-1]), agent.policy.see(torch.arange(6), None))
    torch.testing.assert_close(values[:, 1], 0.9 ** torch.arange(5.0, -1, -1), atol=0.15, rtol=0)
    assert (agent.policy.dist.log_probs(params, 1.0)[:, 1].exp() > 0.9).all()


@pytest.mark.parametrize(
    "overrides, words",
    [
        (
            ["policy.objective.target_temperature=0"],
            "policy.objective.target_temperature=0: allowed are numbers above 0",
        ),
        (["policy.imagination.horizon=0"], "policy.imagination.horizon=0: allowed are whole numbers from 1"),
        (["heads=none"], r"policy.imagination with heads=\[\]: allowed are lists with observation"),
    ],
)
def test_bad_settings(overrides: list[str], words: str) -> None:
    key = overrides[0].split("=")[0]
    with pytest.raises(ConfigError, match=words), bad_input():
        tiny_agent(*CHAIN, *(x for x in PLAN if not x.startswith(key)), *overrides)


def test_continuous_actions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"policy=planned with actions Box.*: allowed are Discrete"):
        ImaginedValueIteration().check(gym.spaces.Box(-1, 1, (2,)), NoCuriosity(SPEC))


def test_a_signal_without_an_upper_limit_is_refused() -> None:
    with (
        pytest.raises(ConfigError, match=r"policy=planned with curiosity Disagreement, .*: allowed are max, none"),
        bad_input(),
    ):
        tiny_agent(*CHAIN, *(x for x in PLAN if not x.startswith("curiosity")), "curiosity=disagreement")


def test_masked_states_give_no_gradient_whatever_their_values() -> None:
    agent, past = planner()
    with torch.no_grad():
        roll = agent.imagination.rollout(agent, past)
    roll.new_steps(roll.mask)[0] = False
    found = []
    for value in (0.0, torch.inf):
        roll.q_values[0], roll.ret_ext[0] = value, value
        agent.zero_grad()
        joint_loss(agent, Minibatch(None, roll)).backward()
        found.append([p.grad for p in agent.policy.parameters() if p.grad is not None])
    assert all(x.isfinite().all() for x in found[1])
    torch.testing.assert_close(found[0], found[1])
