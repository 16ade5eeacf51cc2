"""A policy that learns in imagination: what is imagined, what it is paid, and what it leads to."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from helpers.experience import CHAIN, DREAM
from helpers.runs import rows
from helpers.tiny import tiny_agent

from encoders.discrete import Discrete as DiscreteEncoder
from encoders.grid import Grid
from worldmodel.curiosity import RewardNormalizer
from worldmodel.errors import ConfigError
from worldmodel.model.heads.observation import ObservationHead
from worldmodel.training.config import bad_input


def dreamer(*overrides: str):
    torch.manual_seed(0)
    agent, data, _ = tiny_agent(*CHAIN, *DREAM, *overrides)
    roll = agent.score(data.collector.collect())
    data.replay.add(roll)
    return agent, data, roll


@torch.no_grad()
@pytest.mark.parametrize("overrides", [[], ["curiosity=plan2explore", "curiosity.layers=2"]])
def test_a_dream_is_a_rollout_of_the_present_policy(overrides: list[str]) -> None:
    agent, data, _ = dreamer(*overrides)
    past, _ = data.replay.sample(16, agent.device)
    dream = agent.imagination.rollout(agent, past)
    mask = dream.new_steps(dream.mask)
    assert mask.shape == dream.adv.shape == (16, 5) and dream.obs.shape == (16, 6) and mask.any()
    assert not dream.rew_int[~mask].any() and dream.rew_int[mask].all()
    losses = agent.objective.losses(agent.policy, dream.h, dream.z, dream)
    torch.testing.assert_close(losses["policy"], -dream.adv)  # a ratio of 1 everywhere
    data.env.close()


@torch.no_grad()
def test_what_is_imagined_follows_the_model(monkeypatch) -> None:
    """With a model that is sure, the dream is what it says; and episodes end where it expects them to."""
    agent, data, _ = dreamer()
    monkeypatch.setattr(agent.model, "imagine", lambda h, act, obs: (obs + 2 * act - 1).clamp(0, 5))
    for always, lasts in ((-50.0, 5), (50.0, 1)):
        agent.model.heads.outcome.bias[1] = always
        past, _ = data.replay.sample(16, agent.device)
        dream = agent.imagination.rollout(agent, past)
        act = dream.new_steps(dream.act)
        assert torch.equal(dream.obs[:, 1:], (dream.obs[:, :-1] + 2 * act - 1).clamp(0, 5))
        counts = dream.new_steps(dream.mask).sum(1)
        assert ((counts == lasts) | (counts == 0)).all() and (counts == lasts).any()
        assert dream.new_steps(dream.end).any() == (lasts == 1)
    data.env.close()


@torch.no_grad()
def test_a_dream_begins_where_a_step_was_taken() -> None:
    agent, data, _ = dreamer()
    past, _ = data.replay.sample(16, agent.device)
    past.mask[:8] = False
    dream = agent.imagination.rollout(agent, past)
    assert not dream.mask[:8].any() and dream.mask[8:].any()
    data.env.close()


@torch.no_grad()
@pytest.mark.parametrize("signal", ["disagreement", "max", "none", "plan2explore"])
def test_what_is_foreseen_is_what_is_paid_and_changes_nothing(signal: str) -> None:
    agent, data, _ = tiny_agent(*CHAIN, f"curiosity={signal}")
    roll = data.collector.collect()
    out = agent.model.score_rollout(roll)
    paid = agent.curiosity.reward(roll, out)
    before = copy.deepcopy(agent.curiosity.state_dict())
    torch.testing.assert_close(agent.curiosity.predict_reward(roll, out), paid)
    after = agent.curiosity.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    data.env.close()


@pytest.mark.parametrize("normalise", ["return", "mean_std", "none"])
def test_a_reward_of_a_dream_has_the_scale_of_real_ones(normalise: str) -> None:
    scale = RewardNormalizer(3, normalise=normalise, use_symlog=True, clip=2.0, scale=0.5)
    raw, mask = torch.rand(3, 7) * 9, torch.ones(3, 7, dtype=torch.bool)
    paid, before = scale(raw, mask), copy.deepcopy(scale.state_dict())
    torch.testing.assert_close(scale.apply(raw), paid)
    assert all(torch.equal(before[key], x) for key, x in scale.state_dict().items())


@torch.no_grad()
def test_symbols_are_drawn_as_probable_as_the_head_says() -> None:
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


def test_observations_come_back_from_their_codes() -> None:
    for space in (Discrete(5, start=3), MultiDiscrete([3, 4]), MultiDiscrete([[2, 3], [4, 5]])):
        encoder = DiscreteEncoder(space, dim=4)
        obs = torch.as_tensor(np.stack([space.sample() for _ in range(6)]).reshape(2, 3, *space.shape))
        assert torch.equal(encoder.observation(encoder.codes(obs)), obs)
    encoder = Grid(Box(0, 1, (4, 3, 3), np.uint8), dim=4, num_values=(2, 2, 2))
    obs = torch.randint(2, (2, 5, 4, 3, 3), dtype=torch.uint8)
    back = encoder.observation(encoder.codes(obs))
    assert back.dtype == torch.uint8 and torch.equal(back, obs)


def test_a_policy_planned_anew_forgets() -> None:
    """The same on every rank, whatever its generator: numbers depend on the seed and on the steps alone."""
    agents = [dreamer("policy.imagination.reset_actor=true")[0] for _ in range(2)]
    old = copy.deepcopy(dict(agents[0].policy.named_parameters()))
    for number, agent in enumerate(agents):
        optimizer = torch.optim.Adam(agent.parameters())
        sum(x.sum() for x in agent.policy.parameters()).backward()
        optimizer.step()
        agent.trainer.optimizers = [optimizer]
        torch.manual_seed(number)
        learnt = agent.policy.critic.weight.clone()
        agent.imagination.begin(agent)
        assert torch.equal(agent.policy.critic.weight, learnt) and agent.policy.critic.weight in optimizer.state
        assert agent.policy.actor.weight not in optimizer.state
    a, b = (agent.policy.actor.weight for agent in agents)
    assert torch.equal(a, b) and not torch.equal(a, old["actor.weight"])


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["heads=none"], "policy.dream with heads=none: allowed is true"),
        (["curiosity=rnd"], "policy.dream with curiosity RND, which looks at what came: allowed are disagreement, "),
        (
            ["policy.actor.memory_gradient=true"],
            "policy.actor.memory_gradient=true: allowed with policy.dream is false",
        ),
        (["data.replay_batch=0", "data.replay_capacity=0"], "data.replay_capacity=0: allowed with policy.dream are"),
        (
            ["policy.imagination.updates_per_batch=0"],
            "policy.imagination.updates_per_batch=0: allowed are whole numbers from 1",
        ),
    ],
)
def test_what_a_dream_needs(overrides: list[str], words: str) -> None:
    drop = {x.split("=")[0] for x in overrides} | (
        {"curiosity.members", "curiosity.hidden"} if "rnd" in overrides[0] else set()
    )
    with pytest.raises(ConfigError, match=words), bad_input():
        tiny_agent(*(x for x in [*CHAIN, *DREAM] if x.split("=")[0] not in drop), *overrides)


@pytest.mark.parametrize("world, policy", [("chain", "dream"), ("doorkey", "dream"), ("chain", "plan")])
def test_a_run_that_dreams_goes_on_as_if_never_stopped(world: str, policy: str, cli, tmp_path: Path) -> None:
    own = CHAIN if world == "chain" else ["env.engine=gymnasium", "data.replay_batch=1", "data.replay_capacity=8"]
    settings = [*own, *(x for x in DREAM if world == "chain" or not x.startswith("data.")), f"policy={policy}"]
    settings += ["policy.imagination.reset_actor=true"] if policy == "dream" else []
    steps = 80 if world == "chain" else 32
    for run, totals in (("whole", [3 * steps]), ("parts", [steps, 3 * steps])):
        for number, total in enumerate(totals):
            again = ["checkpoint=auto"] if number else settings
            ended = cli(f"total_steps={total}", f"run_dir={run}", *again, **({"tiny": []} if number else {}))
            assert ended.code == 0, ended.err
    whole, parts = rows(tmp_path / "whole"), rows(tmp_path / "parts")
    assert len(whole) == len(parts) == 3
    timed = {"wall_s", "steps_per_s"}
    for a, b in zip(whole, parts, strict=True):
        assert {k: v for k, v in a.items() if k not in timed and v == v} == {
            k: v for k, v in b.items() if k not in timed and v == v
        }
