"""Box actions through a whole run: what the engine receives, what rows hold, what an agent returns."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from helpers.tiny import TINY, joint_loss, minibatches, tiny_agent

from worldmodel.envs.unit_box import UnitBox
from worldmodel.learner.run_episodes import EpisodeStats, freeze, run_episodes
from worldmodel.training.build import build_env
from worldmodel.training.loading import Agent

BOUNDS = {
    "far": Box(10, 20, (2,), np.float32),
    "mixed": Box(np.float32([-50, 0, -np.inf]), np.float32([50, np.inf, 5])),
    "whole": Box(0, 3, (2, 2), np.int64),
}
RECEIVED: list[np.ndarray] = []


class Echo(gym.Env):
    """World that observes the last action that it received, or its own clock, in episodes of four steps."""

    def __init__(self, bounds: str, cells: bool = False):
        self.action_space, self.cells = BOUNDS[bounds], cells
        flat = Box(-np.inf, np.inf, (int(np.prod(self.action_space.shape)),), np.float32)
        self.observation_space = Discrete(5) if cells else flat

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.look(np.zeros(self.action_space.shape)), {}

    def look(self, act):
        return self.t if self.cells else np.ravel(act).astype(np.float32)

    def step(self, act):
        assert self.action_space.contains(act), f"{act!r} not in {self.action_space}"
        RECEIVED.append(act)
        self.t += 1
        return self.look(act), 1.0, self.t == 4, False, {}


gym.register("Echo-v0", entry_point=Echo)


def echo(bounds: str, *overrides: str) -> tuple:
    """An agent in the world with these bounds."""
    world = ["env=cartpole", "env.id=Echo-v0", "env.engine=gymnasium", f"+env.bounds={bounds}"]
    parts = ["encoder=mlp", "heads=none", "target=random"]
    return tiny_agent(*world, *parts, *overrides, tiny=[*TINY, "target.dim=4"])


@pytest.mark.parametrize(
    ("bounds", "family"),
    [("far", "beta"), ("mixed", "gaussian"), ("mixed", "tanh"), ("whole", "tanh")],
)
def test_rows_hold_what_the_engine_received(bounds: str, family: str) -> None:
    torch.manual_seed(0)
    agent, stream, cfg = echo(
        bounds, f"policy.actor.distribution={family}", "encoder.normalise=false", "target=inverse", "curiosity=icm"
    )
    space = BOUNDS[bounds]
    batches = list(minibatches(agent, stream, cfg))
    assert all(joint_loss(agent, batch).isfinite() for batch in batches)
    roll = batches[0].policy
    assert not torch.allclose(roll.sample, roll.new_steps(roll.act))
    torch.testing.assert_close(agent.policy.dist.execute(roll.sample), roll.new_steps(roll.act))
    mask = roll.new_steps(roll.mask)
    received = roll.next_rows(roll.obs)[mask]  # the world observes its action
    sent = UnitBox(space).to_raw(roll.new_steps(roll.act)[mask].numpy())
    np.testing.assert_allclose(received.numpy(), sent.reshape(received.shape), rtol=1e-6)
    assert mask.sum() > 10 and len(np.unique(sent)) > (3 if bounds == "whole" else 10)
    # the log-probability of the stored sample is that of acting
    params, _ = agent.policy(roll.h, agent.policy.see(roll.new_steps(roll.obs), roll.z))
    logp, _ = agent.policy.dist.evaluate(params, roll.sample, 1.0)
    torch.testing.assert_close(logp, roll.logp, atol=1e-4, rtol=1e-4)
    stream.close()


def test_an_agent_returns_actions_in_the_engines_units() -> None:
    agent, stream, cfg = echo("whole")
    stream.close()
    space = BOUNDS["whole"]
    loaded = Agent(agent.eval(), cfg)
    acts = [loaded.act(np.zeros(4, np.float32)) for _ in range(40)]
    assert all(space.contains(act) for act in acts) and len({int(x) for act in acts for x in act.flat}) == 4
    np.testing.assert_allclose(loaded.output.act[0].numpy(), acts[-1] * (2 / 3) - 1, atol=1e-6)


def test_imagined_actions_are_those_of_the_real_policy() -> None:
    world = ["env=cartpole", "env.id=Echo-v0", "env.engine=gymnasium", "+env.bounds=far", "+env.cells=true"]
    parts = ["encoder=discrete", "heads=[observation]", "policy=imagined", "curiosity=disagreement"]
    sizes = ["data.replay_capacity=8", "policy.imagination.num_start_states=6", "policy.imagination.horizon=5"]
    agent, stream, cfg = tiny_agent(*world, *parts, *sizes, "policy.actor.distribution=tanh")
    (batch, *_) = minibatches(agent, stream, cfg)
    stream.close()
    roll = batch.policy
    assert roll.sample.shape == (6, 5, 2) and roll.act.shape == (6, 6, 2)
    torch.testing.assert_close(roll.sample.tanh(), roll.new_steps(roll.act))
    assert joint_loss(agent, batch).isfinite()


def test_evaluation_sends_mapped_actions() -> None:
    agent, stream, cfg = echo("far", "policy.actor.noise=none")
    stream.close()
    freeze(agent, 2)
    RECEIVED.clear()
    env = build_env(cfg, seed=1, num_envs=2)
    stats = EpisodeStats(2)
    for _ in run_episodes(agent, env, stats, context=2, rollout_length=4, greedy=True):
        pass
    env.close()
    assert stats.ret.tolist() == [4, 4] and len(RECEIVED) >= 8
    assert all(np.all((act >= 10) & (act <= 20)) and 14 < act.mean() < 16 for act in RECEIVED)  # unit 0 is 15
