"""Invariant 4: the same memory, latents, log-probabilities and values while acting and while learning."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny import EASY, tiny_agent
from torch import Tensor

from worldmodel.experience.collector import Collector
from worldmodel.types import Rollout

MEMORIES = {
    "transformer": ["memory=transformer"],
    "learned": ["memory=transformer", "memory.position=learned"],
    "gru": ["memory=gru"],
    "mlp": ["memory=mlp"],
    "huggingface": ["memory=huggingface"],
}
CLOSE = {"atol": 1e-5, "rtol": 0}


def make(memory: str, *overrides: str):
    return tiny_agent(*MEMORIES[memory], *EASY, *overrides)


def disturb(module: torch.nn.Module) -> None:
    """Change all parameters, as an update would."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn_like(p))


def full_pass(agent, roll: Rollout) -> tuple[Tensor, ...]:
    """h, z, logp and values of the new rows, the closing one included, by one pass over all L + 1 rows."""
    z = agent.model.encoder(roll.obs)
    h = agent.model.encode_sequence(z, roll)[:, -roll.num_new - 1 :]
    z = z[:, -roll.num_new - 1 :]
    seen = agent.policy.see(roll.new_rows(roll.obs), z)
    params, values = agent.policy(h, seen)
    logp, _ = agent.policy.dist.evaluate(params[:, :-1], roll.new_steps(roll.act), agent.policy.temperature)
    return h, z, logp, values


@pytest.mark.parametrize("context", [0, 1, 4, 11])
@pytest.mark.parametrize("memory", MEMORIES)
@torch.no_grad()
def test_acting_and_learning_agree(memory: str, context: int) -> None:
    torch.manual_seed(0)
    agent, stream, _ = make(memory, f"data.context={context}")
    crossed = 0
    for _ in range(3):
        disturb(agent)
        roll = stream.collector.collect()
        assert (~roll.new_steps(roll.mask)).any(), "no reset: the test is too easy"
        torch.testing.assert_close(agent.model(roll).h, roll.h, **CLOSE)
        h, z, logp, values = full_pass(agent, roll)
        torch.testing.assert_close(h[:, :-1], roll.h, **CLOSE)
        torch.testing.assert_close(z[:, :-1], roll.z, **CLOSE)
        torch.testing.assert_close(logp, roll.logp, **CLOSE)
        torch.testing.assert_close(values, torch.stack([roll.value_ext, roll.value_int], -1), **CLOSE)
        if context:
            goes_on = roll.valid[:, context - 1] & (roll.episode[:, context - 1] == roll.episode[:, context])
            roll.valid[:, :context] = False
            without_context = agent.model(roll).h
            assert memory == "mlp" or ((without_context - h[:, :-1]).abs().amax((1, 2)) > 1e-4)[goes_on].all()
            crossed += int(goes_on.sum())
    assert crossed or not context, "no episode crosses the K boundary: the test is too easy"
    stream.close()


@pytest.mark.parametrize("memory", MEMORIES)
@torch.no_grad()
def test_a_full_window_shifts_by_itself(memory: str) -> None:
    torch.manual_seed(0)
    agent, stream, _ = make(memory)
    env, n, context, length = stream.env, stream.env.num_envs, 4, 8
    actor = agent.make_actor(n, context, length)
    obs, rows = env.reset(), []
    for _ in range(3 * (context + length)):
        output = actor.observe(obs)
        t = actor.cursor
        rows.append(t)
        window = actor.rows.until(t)
        h = agent.model.encode_sequence(agent.model.encoder(window.obs), window)[:, -1]
        torch.testing.assert_close(output.h, h, **CLOSE)
        step = env.step(output.act)
        actor.record_outcome(step.rew, step.end, step.trunc, step.ignored)
        obs = step.obs
    assert max(rows) == context + length + 1 and rows.count(context + 1) > 1
    stream.close()


@torch.no_grad()
def test_given_actions_are_taken_and_recorded() -> None:
    _, stream, _ = make("transformer")
    actor, given = stream.collector.actor, torch.tensor([0, 1, 2, 0])
    output = actor.observe(stream.collector.obs, actions=given)
    assert output.act.tolist() == given.tolist() and (output.logp == 0).all()
    assert actor.rows.act[:, actor.context].tolist() == given.tolist()
    stream.close()


@torch.no_grad()
def test_greedy_takes_the_most_probable_action() -> None:
    torch.manual_seed(0)
    agent, stream, _ = make("gru")
    disturb(agent)
    roll = Collector(stream.env, stream.collector.actor, stream.collector.episodes, greedy=True).collect()
    params, _ = agent.policy(roll.h, agent.policy.see(roll.new_steps(roll.obs), roll.z))
    assert (roll.new_steps(roll.act) == params.argmax(-1)).all()
    stream.close()
