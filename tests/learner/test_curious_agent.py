"""The joint loss: its terms, its masks and its gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.tiny import EASY, clone, joint_loss, minibatches, tiny_agent
from torch import Tensor

from worldmodel.errors import ConfigError
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.policy.ppo import policy_kl
from worldmodel.types import Minibatch, ScoredRollout, concatenate


def make(*overrides: str) -> tuple[CuriousAgent, ScoredRollout]:
    """An untrained agent and a rollout that it has scored."""
    torch.manual_seed(0)
    agent, stream, _ = tiny_agent(*EASY, *overrides)
    roll = agent.score(stream.collector.collect())
    stream.close()
    return agent, roll


def terms(agent: CuriousAgent, batch: Minibatch) -> dict[str, Tensor]:
    return {name: loss.detach() for name, loss in agent.losses(batch).terms.items()}


def reached(agent: CuriousAgent, prefix: str) -> bool:
    parameters = [p for name, p in agent.named_parameters() if name.startswith(prefix) and p.requires_grad]
    assert parameters
    return any(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)


def test_the_loss_is_the_weighted_sum_of_masked_means() -> None:
    agent, roll = make("weights.delta=2", "weights.end=0", "weights.value=0.25")
    total = joint_loss(agent, Minibatch(roll, roll))
    sums = terms(agent, Minibatch(roll, roll))
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
def test_policy_gradients_reach_the_memory_only_where_configured(reaches: bool, old: bool) -> None:
    agent, roll = make(f"policy.actor.memory_gradient={reaches}", "policy.actor.memory_gain=1.0")
    agent.weights |= {"delta": 0.0, "rew": 0.0, "end": 0.0}
    model = concatenate([roll, roll.as_sequences()[:2]]) if old else roll
    joint_loss(agent, Minibatch(model, roll)).backward()
    assert reached(agent, "policy.") and reached(agent, "model.memory.") == reaches
    assert reached(agent, "model.encoder.") == reaches


@pytest.mark.parametrize("remembers", [True, False])
def test_a_policy_with_a_separate_encoder_trains_that_encoder_alone(remembers: bool) -> None:
    agent, roll = make(f"policy.actor.reads_memory={remembers}")
    assert not torch.equal(agent.policy.encoder(roll.new_steps(roll.obs)), roll.z)
    losses = agent.objective.losses(agent.policy, roll.h, roll.z, roll)
    torch.testing.assert_close(losses["policy"], -roll.adv, atol=1e-5, rtol=0)  # the ratio is 1: on policy
    joint_loss(agent, Minibatch(None, roll)).backward()
    assert reached(agent, "policy.encoder.") and not reached(agent, "model.")


@pytest.mark.parametrize("reaches", [True, False])
def test_replayed_sequences_train_the_world_model_alone(reaches: bool) -> None:
    agent, roll = make(f"policy.actor.memory_gradient={reaches}")
    other = clone(roll).as_sequences()
    other.obs[..., 0] = (other.obs[..., 0] + 3) % 11
    fresh = terms(agent, Minibatch(roll, roll))
    mixed = terms(agent, Minibatch(concatenate([roll, other]), roll))
    for key in ("policy", "value", "entropy"):
        torch.testing.assert_close(mixed[key], fresh[key])
    assert not torch.isclose(mixed["delta"], fresh["delta"])


def test_a_step_of_the_policy_alone_leaves_the_world_model_as_it_is() -> None:
    agent, roll = make()
    assert set(terms(agent, Minibatch(None, roll))) == {"policy", "value", "entropy"}
    joint_loss(agent, Minibatch(None, roll)).backward()
    assert reached(agent, "policy.") and not reached(agent, "model.")
    assert all(p.grad is None for p in agent.model.parameters())
    joint_loss(agent, Minibatch(roll, roll)).backward()
    assert reached(agent, "model.")


@pytest.mark.parametrize("count", [1, 3])
def test_replayed_sequences_are_ranked_by_their_own_prediction_errors(count: int) -> None:
    agent, roll = make()
    old = roll.as_sequences()[:count]
    batch = Minibatch(concatenate([roll, old]), roll, replayed=np.arange(count))
    replayed = agent.losses(batch).replayed
    mask = old.new_steps(old.mask)
    error = agent.model(old).skill_error
    assert replayed.shape == (count,) and not replayed.requires_grad
    torch.testing.assert_close(replayed, torch.stack([e[m].mean() for e, m in zip(error, mask, strict=True)]).detach())
    assert agent.losses(Minibatch(roll, roll)).replayed is None


def test_a_weight_without_a_loss_is_refused() -> None:
    agent, roll = make("+weights.inverse=1.0")
    with pytest.raises(ConfigError, match=r"weights.inverse: no such loss, allowed are delta, rew, end, policy"):
        joint_loss(agent, Minibatch(roll, roll))


def test_a_loss_without_a_weight_has_weight_one() -> None:
    agent, roll = make("target=inverse")
    total = joint_loss(agent, Minibatch(roll, roll)).detach()
    found = terms(agent, Minibatch(roll, roll))
    weighted = sum(agent.weights.get(k, 1.0) * x for k, x in found.items())
    assert found["inverse"] > 0
    torch.testing.assert_close(total, weighted)


def test_masked_steps_do_not_change_the_loss() -> None:
    agent, roll = make()
    before = joint_loss(agent, Minibatch(roll, roll))
    other, masked = clone(roll), ~roll.new_steps(roll.mask)
    for x in (other.adv, other.ret_ext, other.ret_int, other.new_steps(other.rew_ext)):
        x[masked] = 1e3
    other.new_steps(other.end)[masked] = True
    torch.testing.assert_close(joint_loss(agent, Minibatch(other, other)), before)


def test_temperature_follows_the_steps() -> None:
    agent, stream, _ = tiny_agent("policy.actor.temperature=3.0", "total_steps=64")
    for expected in (3.0, 2.0, 1.0):
        agent.begin_rollout()
        agent.score(stream.collector.collect())
        assert float(agent.policy.temperature) == pytest.approx(expected)
    assert int(agent.env_steps) == 96
    stream.close()


def test_acting_and_learning_have_the_same_temperature() -> None:
    agent, stream, cfg = tiny_agent(*EASY, "policy.actor.temperature=3.0", "total_steps=96")
    for _ in range(3):
        batch = next(iter(minibatches(agent, stream, cfg)))
        figures = agent.losses(batch).figures
        assert float(figures["kl"]) == pytest.approx(0.0, abs=1e-6) and float(figures["clip_fraction"]) == 0.0
    stream.close()


@pytest.mark.parametrize("part", ["logp", "adv", "ret_ext", "ret_int"])
def test_masked_steps_give_no_gradient_whatever_their_values(part: str) -> None:
    agent, roll = make()
    other, masked = clone(roll), ~roll.new_steps(roll.mask)
    assert masked.any()
    if part == "logp":
        other.logp[masked] -= 100.0  # a log-ratio of 100, whose exponential overflows
    else:
        getattr(other, part)[masked] = 1e30  # whose square overflows
    found = []
    for batch in (roll, other):
        agent.zero_grad()
        loss = joint_loss(agent, Minibatch(batch, batch))
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in agent.parameters() if p.grad is not None)])
    assert all(x.isfinite().all() for x in found[1])
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("target", ["random", "inverse", "ema", "sigreg", "vicreg", "reconstruction"])
def test_every_learned_parameter_gets_a_gradient(target: str) -> None:
    """With several ranks, DDP would wait for a missing gradient without end."""
    agent, roll = make(f"target={target}")
    joint_loss(agent, Minibatch(roll, roll)).backward()
    assert not [name for name, p in agent.named_parameters() if p.requires_grad and p.grad is None]
