"""The joint loss, where its gradients go, and what happens at each step of the optimiser."""

from __future__ import annotations

import math

import lightning as L
import pytest
import torch
from helpers.tiny import EASY, clone, tiny_agent, tiny_config

from worldmodel.errors import ConfigError, NonFiniteLoss
from worldmodel.policy.ppo import policy_kl
from worldmodel.training.build import build_agent, build_data, env_spec
from worldmodel.types import Minibatch, concatenate


def make(*overrides: str) -> tuple:
    torch.manual_seed(0)
    agent, data, _ = tiny_agent(*EASY, *overrides)
    roll = agent.score(data.collector.collect())
    data.close()
    return agent, roll


def reached(agent, prefix: str) -> bool:
    parameters = [p for name, p in agent.named_parameters() if name.startswith(prefix) and p.requires_grad]
    assert parameters
    return any(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)


def test_the_loss_is_the_weighted_sum_of_masked_means() -> None:
    agent, roll = make("weights.delta=2", "weights.end=0", "weights.value=0.25")
    total = joint_loss(agent, Minibatch(roll, roll))
    sums = agent.sums
    assert set(sums) == {"delta", "rew", "end", "policy", "value", "entropy"}
    w = agent.weights
    torch.testing.assert_close(total.detach(), sum(w[k] * x for k, x in sums.items()))
    with torch.no_grad():
        value = 0.5 * ((roll.value_ext[:, :-1] - roll.ret_ext) ** 2 + (roll.value_int[:, :-1] - roll.ret_int) ** 2)
        nll = agent.model.losses(agent.model(roll), roll)["delta"]
    mask = roll.new_steps(roll.mask)
    assert not mask.all()
    torch.testing.assert_close(sums["value"], value[mask].mean())
    torch.testing.assert_close(sums["delta"], nll[mask].mean())


@pytest.mark.parametrize("reaches", [True, False])
def test_first_minibatch_is_on_policy(reaches: bool) -> None:
    agent, roll = make(f"policy.actor.memory_gradient={reaches}")
    h, z = (x.detach() for x in (agent.model(roll).h, agent.model(roll).z[:, :-1]))
    if not reaches:
        h, z = roll.h, roll.z
    params, _ = agent.policy(h, agent.policy.see(roll.new_steps(roll.obs), z))
    logp, entropy = agent.policy.dist.evaluate(params, roll.new_steps(roll.act), agent.policy.temperature)
    assert policy_kl(logp, roll.logp).abs().max() < 1e-6
    losses = agent.objective.losses(agent.policy, h, z, roll)
    torch.testing.assert_close(losses["policy"], -roll.adv, atol=1e-5, rtol=0)
    torch.testing.assert_close(losses["entropy"], -entropy)


@pytest.mark.parametrize("reaches", [True, False])
@pytest.mark.parametrize("old", [True, False], ids=["replay", "fresh"])
def test_the_policy_shapes_the_memory_only_if_it_may(reaches: bool, old: bool) -> None:
    agent, roll = make(f"policy.actor.memory_gradient={reaches}", "policy.actor.memory_gain=1.0")
    agent.weights |= {"delta": 0.0, "rew": 0.0, "end": 0.0}
    model = concatenate([roll, roll.as_sequences()[:2]]) if old else roll
    joint_loss(agent, Minibatch(model, roll)).backward()
    assert reached(agent, "policy.") and reached(agent, "model.memory.") == reaches
    assert reached(agent, "model.encoder.") == reaches


@pytest.mark.parametrize("remembers", [True, False])
def test_a_policy_with_an_encoder_of_its_own_shapes_that_one(remembers: bool) -> None:
    agent, roll = make(f"policy.actor.reads_memory={remembers}")
    assert not torch.equal(agent.policy.encoder(roll.new_steps(roll.obs)), roll.z)
    losses = agent.objective.losses(agent.policy, roll.h, roll.z, roll)
    torch.testing.assert_close(losses["policy"], -roll.adv, atol=1e-5, rtol=0)  # the ratio is 1: on policy
    joint_loss(agent, Minibatch(None, roll)).backward()
    assert reached(agent, "policy.encoder.") and not reached(agent, "model.")


@pytest.mark.parametrize("reaches", [True, False])
def test_old_sequences_teach_the_world_model_and_not_the_policy(reaches: bool) -> None:
    agent, roll = make(f"policy.actor.memory_gradient={reaches}")
    other = rehearsal(clone(roll))
    other.obs[..., 0] = (other.obs[..., 0] + 3) % 11
    joint_loss(agent, Minibatch(roll, roll))
    fresh, agent.sums = agent.sums, {}
    joint_loss(agent, Minibatch(concatenate([roll, other]), roll))
    for key in ("policy", "value", "entropy"):
        torch.testing.assert_close(agent.sums[key], fresh[key])
    assert not torch.isclose(agent.sums["delta"], fresh["delta"])


def test_the_world_model_takes_its_turn_with_the_sequences_of_several_minibatches() -> None:
    _, data, _ = tiny_agent(
        *EASY, "data.batch=1", "data.model_every=2", "data.model_batch=1", "data.epochs=3", "data.replay_batch=1",
        "data.replay_capacity=8",
    )  # fmt: skip
    batches, length = list(data.train_dataloader()), len(data.train_dataloader())
    data.close()
    assert len(batches) == length == 3 * 4
    assert [b.model is not None for b in batches] == [True, False] * 6
    assert all(len(b.policy) == 1 and (b.model is None or len(b.model) == 2) for b in batches)
    assert all(torch.equal(b.model.act[0], b.policy.act[0]) for b in batches[::2])
    for epoch in range(3):  # each sequence once
        acts = torch.cat([b.policy.act for b in batches[4 * epoch : 4 * epoch + 4]])
        assert len({tuple(a.tolist()) for a in acts}) == 4


def test_a_step_of_the_policy_alone_leaves_the_world_model_as_it_is() -> None:
    agent, roll = make()
    joint_loss(agent, Minibatch(None, roll)).backward()
    assert reached(agent, "policy.") and not reached(agent, "model.")
    assert all(p.grad is None for p in agent.model.parameters())
    assert set(agent.sums) == {"policy", "value", "entropy"} and not agent.model_learnt
    joint_loss(agent, Minibatch(roll, roll)).backward()
    assert reached(agent, "model.") and agent.model_learnt
    agent.row = {}
    nll = agent.model.losses(agent.model(roll), roll)["delta"][roll.new_steps(roll.mask)].mean()
    assert agent.report()["loss_delta"] == pytest.approx(float(nll.detach()), rel=1e-5)  # a mean over its own turns


def test_a_weight_without_a_loss_is_refused() -> None:
    agent, roll = make("+weights.inverse=1.0")
    with pytest.raises(ConfigError, match=r"weights.inverse: no such loss, allowed are delta, rew, end, policy"):
        joint_loss(agent, Minibatch(roll, roll))


def test_a_loss_without_a_weight_weighs_one() -> None:
    agent, roll = make("target=inverse")
    total = joint_loss(agent, Minibatch(roll, roll)).detach()
    weighted = sum(agent.weights.get(k, 1.0) * x for k, x in agent.sums.items())
    assert agent.sums["inverse"] > 0
    torch.testing.assert_close(total, weighted)


def test_a_loss_that_is_not_finite_is_named() -> None:
    agent, roll = make()
    roll.ret_ext[0, 0] = math.inf
    with pytest.raises(NonFiniteLoss, match="env_steps=32: value"):
        joint_loss(agent, Minibatch(roll, roll))


def test_what_is_masked_teaches_nothing() -> None:
    agent, roll = make()
    before = joint_loss(agent, Minibatch(roll, roll))
    other, masked = clone(roll), ~roll.new_steps(roll.mask)
    for x in (other.adv, other.ret_ext, other.ret_int, other.new_steps(other.rew_ext)):
        x[masked] = 1e3
    other.new_steps(other.end)[masked] = True
    torch.testing.assert_close(joint_loss(agent, Minibatch(other, other)), before)


def test_temperature_follows_the_steps() -> None:
    agent, data, _ = tiny_agent("policy.actor.temperature=3.0", "total_steps=64")
    for expected in (2.0, 1.0, 1.0):
        agent.score(data.collector.collect())
        assert float(agent.policy.temperature) == pytest.approx(expected)
    assert int(agent.env_steps) == 96
    data.close()


@pytest.mark.parametrize("target", ["random", "inverse", "ema", "sigreg", "vicreg", "reconstruction"])
def test_every_parameter_that_learns_gets_a_gradient(target: str) -> None:
    """Otherwise several ranks would wait for it for ever."""
    agent, roll = make(f"target={target}")
    joint_loss(agent, Minibatch(roll, roll)).backward()
    assert not [name for name, p in agent.named_parameters() if p.requires_grad and p.grad is None]


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 8), (2, 4), (3, 4)])
def test_slow_copies_move_once_a_step_of_the_optimiser(accumulate: int, steps: int, tmp_path, monkeypatch) -> None:
    cfg = tiny_config("target=ema")
    agent, data = build_agent(cfg, env_spec(cfg)), build_data(cfg)
    moved, signal = [], []
    monkeypatch.setattr(agent.model.target, "update", lambda: moved.append(agent.policy.actor.weight.clone()))
    monkeypatch.setattr(agent.curiosity, "update", lambda: signal.append(len(moved)))
    trainer = L.Trainer(
        max_epochs=2, accumulate_grad_batches=accumulate, logger=False, enable_checkpointing=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(agent, data)  # two updates of four minibatches
    assert trainer.global_step == steps == len(moved) and signal == list(range(1, steps + 1))
    assert torch.equal(moved[-1], agent.policy.actor.weight), "it moved before the last step"
