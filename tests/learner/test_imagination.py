"""Imagined rollouts: their policy, their model, their rewards, and runs that learn from them."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from helpers.experience import CHAIN, DREAM
from helpers.runs import TIMED, rows
from helpers.tiny import tiny_agent

from encoders.discrete import Discrete as DiscreteEncoder
from encoders.grid import Grid
from worldmodel.curiosity import RewardNormalizer
from worldmodel.errors import ConfigError
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.model.heads.observation import ObservationHead
from worldmodel.training.config import bad_input
from worldmodel.training.module import drop_moments
from worldmodel.types import Sequences


def imagining(*overrides: str) -> tuple[CuriousAgent, Sequences]:
    """An untrained agent that learns in imagination, and 16 sequences drawn from its replay."""
    torch.manual_seed(0)
    agent, stream, _ = tiny_agent(*CHAIN, *DREAM, *overrides)
    roll = stream.collector.collect()
    agent.score(roll)
    stream.replay.add(roll)
    past, _ = stream.replay.sample(16, agent.device)
    stream.close()
    torch.manual_seed(1)  # draws a row at which episodes go on
    return agent, past


@torch.no_grad()
@pytest.mark.parametrize("overrides", [[], ["curiosity=plan2explore", "curiosity.layers=2"]])
def test_imagined_rollouts_are_on_policy(overrides: list[str]) -> None:
    agent, past = imagining(*overrides)
    rollout = agent.imagination.rollout(agent, past)
    mask = rollout.new_steps(rollout.mask)
    assert mask.shape == rollout.adv.shape == (16, 5) and rollout.obs.shape == (16, 6) and mask.any()
    assert not rollout.rew_int[~mask].any() and rollout.rew_int[mask].all()
    losses = agent.objective.losses(agent.policy, rollout.h, rollout.z, rollout)
    torch.testing.assert_close(losses["policy"], -rollout.adv)  # a ratio of 1 everywhere


@torch.no_grad()
def test_imagined_rollouts_follow_a_deterministic_model(monkeypatch) -> None:
    """Observations are the predicted ones, and episodes end where the model predicts it."""
    agent, past = imagining()
    monkeypatch.setattr(agent.model, "imagine", lambda h, act, obs: (obs + 2 * act - 1).clamp(0, 5))
    for always, lasts in ((-50.0, 5), (50.0, 1)):
        agent.model.heads["dynamics"].end.bias[0] = always
        rollout = agent.imagination.rollout(agent, past)
        act = rollout.new_steps(rollout.act)
        assert torch.equal(rollout.obs[:, 1:], (rollout.obs[:, :-1] + 2 * act - 1).clamp(0, 5))
        counts = rollout.new_steps(rollout.mask).sum(1)
        assert ((counts == lasts) | (counts == 0)).all() and (counts == lasts).any()
        assert rollout.new_steps(rollout.end).any() == (lasts == 1)


@torch.no_grad()
def test_imagination_starts_at_real_steps_only() -> None:
    agent, past = imagining()
    past.mask[:8] = False
    rollout = agent.imagination.rollout(agent, past)
    assert not rollout.mask[:8].any() and rollout.mask[8:].any()


@torch.no_grad()
@pytest.mark.parametrize("signal", ["disagreement", "max", "none", "plan2explore"])
def test_predicted_rewards_equal_real_ones_and_change_no_state(signal: str) -> None:
    agent, stream, _ = tiny_agent(*CHAIN, f"curiosity={signal}")
    roll = stream.collector.collect()
    stream.close()
    out = agent.model.score_rollout(roll)
    paid = agent.curiosity.reward(roll, out)
    before = copy.deepcopy(agent.curiosity.state_dict())
    torch.testing.assert_close(agent.curiosity.predict_reward(roll, out), paid)
    after = agent.curiosity.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("normalise", ["return", "mean_std", "none"])
def test_imagined_rewards_have_the_scale_of_real_ones(normalise: str) -> None:
    scale = RewardNormalizer(3, normalise=normalise, use_symlog=True, clip=2.0, scale=0.5)
    raw, mask = torch.rand(3, 7) * 9, torch.ones(3, 7, dtype=torch.bool)
    paid, before = scale(raw, mask), copy.deepcopy(scale.state_dict())
    torch.testing.assert_close(scale.apply(raw), paid)
    assert all(torch.equal(before[key], x) for key, x in scale.state_dict().items())


@torch.no_grad()
def test_symbols_are_drawn_with_the_predicted_probabilities() -> None:
    torch.manual_seed(0)
    space = MultiDiscrete([3, 2])
    head = ObservationHead(6, DiscreteEncoder(space, dim=6), space, hidden=8)
    for table in head.chain.values():
        torch.nn.init.normal_(table.weight)
    h, act = torch.randn(1, 6), torch.randn(1, 6)
    drawn = head.sample(h.expand(20000, -1), act.expand(20000, -1))[:, 0]
    for a in range(3):
        for b in range(2):
            expected = torch.exp(-head.nll(h, act, torch.tensor([[[a, b]]])))
            share = ((drawn[:, 0] == a) & (drawn[:, 1] == b)).float().mean()
            assert abs(float(share - expected)) < 0.015  # 4 standard errors


def test_codes_decode_to_their_observation() -> None:
    for space in (Discrete(5, start=3), MultiDiscrete([3, 4]), MultiDiscrete([[2, 3], [4, 5]])):
        encoder = DiscreteEncoder(space, dim=4)
        obs = torch.as_tensor(np.stack([space.sample() for _ in range(6)]).reshape(2, 3, *space.shape))
        assert torch.equal(encoder.observation(encoder.codes(obs)), obs)
    encoder = Grid(Box(0, 1, (4, 3, 3), np.uint8), dim=4, num_values=(2, 2, 2))
    obs = torch.randint(2, (2, 5, 4, 3, 3), dtype=torch.uint8)
    back = encoder.observation(encoder.codes(obs))
    assert back.dtype == torch.uint8 and torch.equal(back, obs)


def test_reset_actor_is_the_same_on_every_rank_and_drops_its_moments() -> None:
    """The new numbers depend on the seed and the steps alone, not on the state of the generator."""
    agents = [imagining("policy.imagination.reset_actor=true")[0] for _ in range(2)]
    old = copy.deepcopy(dict(agents[0].policy.named_parameters()))
    for number, agent in enumerate(agents):
        optimizer = torch.optim.Adam(agent.parameters())
        sum(x.sum() for x in agent.policy.parameters()).backward()
        optimizer.step()
        torch.manual_seed(number)
        learnt = agent.policy.critic.weight.clone()
        drop_moments([optimizer], agent.begin_update())
        assert torch.equal(agent.policy.critic.weight, learnt) and agent.policy.critic.weight in optimizer.state
        assert agent.policy.actor.weight not in optimizer.state
    a, b = (agent.policy.actor.weight for agent in agents)
    assert torch.equal(a, b) and not torch.equal(a, old["actor.weight"])


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["heads=none"], r"policy.imagination with heads=\[\]: allowed are lists with observation"),
        (
            ["curiosity=rnd"],
            "policy.imagination with curiosity RND, which needs real outcomes: allowed are disagreement, ",
        ),
        (
            ["policy.actor.memory_gradient=true"],
            "policy.actor.memory_gradient=true: allowed with policy.imagination is false",
        ),
        (
            ["data.replay_batch=0", "data.replay_capacity=0"],
            "data.replay_capacity=0: allowed with policy.imagination are",
        ),
        (
            ["policy.imagination.updates_per_batch=0"],
            "policy.imagination.updates_per_batch=0: allowed are whole numbers from 1",
        ),
    ],
)
def test_bad_settings(overrides: list[str], words: str) -> None:
    drop = {x.split("=")[0] for x in overrides} | (
        {"curiosity.members", "curiosity.hidden"} if "rnd" in overrides[0] else set()
    )
    with pytest.raises(ConfigError, match=words), bad_input():
        tiny_agent(*(x for x in [*CHAIN, *DREAM] if x.split("=")[0] not in drop), *overrides)


@pytest.mark.parametrize("world, policy", [("chain", "imagined"), ("doorkey", "imagined"), ("chain", "planned")])
def test_a_resumed_run_equals_an_uninterrupted_one(world: str, policy: str, cli, tmp_path: Path) -> None:
    own = CHAIN if world == "chain" else ["env.engine=gymnasium", "data.replay_batch=1", "data.replay_capacity=8"]
    settings = [*own, *(x for x in DREAM if world == "chain" or not x.startswith("data.")), f"policy={policy}"]
    settings += ["policy.imagination.reset_actor=true"] if policy == "imagined" else []
    steps = 80 if world == "chain" else 32
    for run, totals in (("whole", [3 * steps]), ("parts", [steps, 3 * steps])):
        for number, total in enumerate(totals):
            again = ["checkpoint=auto"] if number else settings
            ended = cli(f"total_steps={total}", f"run_dir={run}", *again, **({"tiny": []} if number else {}))
            assert ended.code == 0, ended.err
    whole, parts = rows(tmp_path / "whole"), rows(tmp_path / "parts")
    assert len(whole) == len(parts) >= 3
    for a, b in zip(whole, parts, strict=True):
        assert {k: v for k, v in a.items() if k not in TIMED and v == v} == {
            k: v for k, v in b.items() if k not in TIMED and v == v
        }
