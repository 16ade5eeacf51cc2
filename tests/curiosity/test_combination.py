"""Weighted sums and products of signals, and the random policy."""

from __future__ import annotations

from functools import partial
from math import log
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from helpers.by_hand import SPEC
from helpers.tiny import tiny_agent, tiny_config
from helpers.worlds import rollout, views

from worldmodel.curiosity import AgentSpec, Curiosity, Product, WeightedSum
from worldmodel.envs.unit_box import UnitBox
from worldmodel.policy import RandomPolicy
from worldmodel.training.build import build_agent, env_spec
from worldmodel.training.checkpoint import read_checkpoint


class Fixed(Curiosity):
    """A signal with given rewards."""

    def __init__(self, spec: AgentSpec, rew: list[float], name: str):
        super().__init__(spec)
        self.rew, self.name, self.updates = torch.tensor([rew]), name, 0

    def reward(self, roll, out):
        return self.rew

    def losses(self, roll, out):
        return {self.name: self.rew}

    def update(self) -> None:
        self.updates += 1


ONE, TWO = [1.0, 2.0, 3.0], [4.0, 0.0, 4.0]
ROLL = rollout(views([[0, 1, 2, 3]]), [[0, 0, 0, 1]])  # the last step is masked


def combine(kind, **options) -> Curiosity:
    parts = {"one": partial(Fixed, rew=ONE, name="a"), "two": partial(Fixed, rew=TWO, name="a")}
    return kind(SPEC, parts=parts, **options)


def test_weighted_sum_by_hand() -> None:
    plain = combine(WeightedSum, weights={"one": 1.0, "two": 0.5}, normalise=False)
    assert plain.reward(ROLL, None).tolist() == [[3.0, 2.0, 0.0]]
    scaled = combine(WeightedSum, weights={"one": 1.0, "two": 0.5}, gamma=0.5)
    # discounted sums 1, 2.5 and 4, 2
    expected = torch.tensor([[1 / 0.75 + 2.0, 2 / 0.75, 0.0]])
    torch.testing.assert_close(scaled.reward(ROLL, None), expected)
    with pytest.raises(ValueError, match=r"curiosity.weights=\{'one': 1.0\}: allowed is one for each of one, two"):
        combine(WeightedSum, weights={"one": 1.0})


def test_product_by_hand() -> None:
    assert combine(Product).reward(ROLL, None).tolist() == [[4.0, 0.0, 12.0]]
    with pytest.raises(ValueError, match=r"curiosity.parts"):
        Product(SPEC, parts={})


def test_parts_learn_and_are_reset() -> None:
    both = combine(WeightedSum, weights={"one": 1.0, "two": 0.5})
    assert {k: x.tolist() for k, x in both.losses(ROLL, None).items()} == {"one_a": [ONE], "two_a": [TWO]}
    both.update()
    assert [part.updates for part in both.parts.values()] == [1, 1]
    both.reset(3)
    assert all(scale.sum.tolist() == [0, 0, 0] for scale in both.scales.values())


def test_parts_are_chosen_by_config() -> None:
    overrides = ["+curiosity@curiosity.parts.rnd=rnd", "+curiosity.weights.rnd=0.5", "~curiosity@curiosity.parts.count"]
    cfg = tiny_config("curiosity=weighted_sum", *overrides, "~curiosity.weights.count")
    agent = build_agent(cfg, env_spec(cfg))
    assert {k: type(x).__name__ for k, x in agent.curiosity.parts.items()} == {"surprise": "Surprise", "rnd": "RND"}
    cfg = tiny_config("curiosity=product", "curiosity@curiosity.parts.episodic=e3b", "curiosity.parts.lifelong.dim=7")
    agent = build_agent(cfg, env_spec(cfg))
    assert type(agent.curiosity.parts["episodic"]).__name__ == "E3B"
    assert agent.curiosity.parts["lifelong"].distillation.target.net[-1].out_features == 7


def test_combinations_of_combinations() -> None:
    sums = ["curiosity@curiosity.parts.lifelong=weighted_sum", "curiosity.parts.lifelong.weights.count=0.5"]
    cfg = tiny_config("curiosity=product", *sums)
    lifelong = build_agent(cfg, env_spec(cfg)).curiosity.parts["lifelong"]
    assert lifelong.weights == {"surprise": 1.0, "count": 0.5} and set(lifelong.parts) == {"surprise", "count"}


def random_policy(space: gym.Space) -> RandomPolicy:
    torch.manual_seed(0)
    return RandomPolicy(4, (4,), space, hidden=8, null_action=0, null_bias=5.0, temperature=0.1)


@pytest.mark.parametrize("greedy", [False, True])
def test_random_actions_are_uniform(greedy: bool) -> None:
    policy, x = random_policy(gym.spaces.Discrete(4)), torch.randn(20000, 4)
    if not greedy:
        act, _, logp, values = policy.act(x, x)
        torch.testing.assert_close(logp, torch.full_like(logp, -log(4)))
        again, entropy = policy.dist.evaluate(policy(x, x)[0], act, policy.temperature)
        torch.testing.assert_close(again, logp)
        torch.testing.assert_close(entropy, torch.full_like(entropy, log(4)))
    else:
        act, *_, values = policy.act(x, x, greedy=True)
    torch.testing.assert_close(act.bincount() / 20000, torch.full((4,), 0.25), atol=0.02, rtol=0)
    assert values.std() > 0
    low, high = np.array([-1, 2, -np.inf], np.float32), np.array([1, 6, np.inf], np.float32)
    space = UnitBox(gym.spaces.Box(low, high))
    act = torch.from_numpy(space.to_raw(random_policy_of_box(space).act(x, x, greedy).act.numpy()))
    torch.testing.assert_close(act.mean(0), torch.tensor([0.0, 4.0, 0.0]), atol=0.05, rtol=0)
    torch.testing.assert_close(act.std(0), torch.tensor([2 / 12**0.5, 4 / 12**0.5, 1.0]), atol=0.05, rtol=0)
    assert (act[:, 0].abs() <= 1).all() and (act[:, 1] >= 2).all() and (act[:, 1] <= 6).all()


def random_policy_of_box(space: UnitBox) -> RandomPolicy:
    torch.manual_seed(0)
    return RandomPolicy(4, (4,), space, hidden=8)


def test_the_random_policy_is_configured() -> None:
    agent, stream, cfg = tiny_agent("policy=random", "curiosity=none")
    stream.close()
    assert cfg.curiosity == tiny_config("curiosity=none").curiosity
    assert cfg.policy == tiny_config("policy=random").policy
    assert isinstance(agent.policy, RandomPolicy)


def test_an_interrupted_run_continues_bit_for_bit(cli, tmp_path: Path) -> None:
    """Invariant 8, for all state that signals keep."""
    names = ["ride", "noveld", "e3b", "ngu", "deir", "etd", "rnd", "learning_progress", "byol_explore"]
    parts = [f"+curiosity@curiosity.parts.{name}={name}" for name in names]
    weights = [f"+curiosity.weights.{name}=1" for name in names]
    options = ["env=cartpole", "env.engine=gymnasium", "encoder=mlp", "data.keep_envs=true"]
    options += ["curiosity=weighted_sum", "curiosity.parts.count.scope=product", *parts, *weights]
    options += ["data.replay_batch=1", "data.replay_capacity=8"]
    options += [f"curiosity.parts.{name}.{size}" for name in names[-2:] for size in ("dim=16", "hidden=32")]
    runs = [tmp_path / "whole", tmp_path / "halves"]
    assert cli("total_steps=128", f"run_dir={runs[0]}", *options).code == 0
    assert cli("total_steps=64", f"run_dir={runs[1]}", *options).code == 0
    again = ["checkpoint=auto", "total_steps=128", f"run_dir={runs[1]}", "data.keep_envs=true"]
    assert cli(*again, tiny=[]).code == 0
    one, two = (read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"] for run in runs)
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    assert int(one["agent.env_steps"]) >= 128 and (one["agent.curiosity.parts.deir.memory.past.episode"] >= 0).any()
