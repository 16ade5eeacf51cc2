"""Vectors enter every encoder in units of their spread, with statistics that are constant within an update."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from helpers.tiny import minibatches, tiny_agent
from torch import Tensor

from worldmodel.experience.stream import ExperienceStream
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.learner.run_episodes import EpisodeStats, freeze, run_episodes
from worldmodel.types import ScoredRollout

CARTPOLE = ["experiment=cartpole", "env.engine=gymnasium"]


class FarAway(gym.ObservationWrapper):
    """CartPole in other units, far from 0, with an entry that never changes."""

    def __init__(self, env: gym.Env):
        super().__init__(env)
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (5,), np.float32)

    def observation(self, obs: np.ndarray) -> np.ndarray:
        return np.append(64 * obs + 128, 1e4).astype(np.float32)


gym.register("tests/FarCartPole-v0", lambda **_: FarAway(gym.make("CartPole-v1")), order_enforce=False)


def statistics(agent: CuriousAgent) -> dict[str, Tensor]:
    return {n: x.clone() for n, x in agent.state_dict().items() if "standardise" in n}


def rollouts(agent: CuriousAgent, stream: ExperienceStream, count: int) -> list[ScoredRollout]:
    found = []
    for _ in range(count):
        agent.begin_rollout()
        found.append(agent.score(stream.collector.collect()))
    return found


@pytest.mark.parametrize("memory", ["transformer", "gru"])
def test_acting_and_learning_use_the_same_statistics(memory: str) -> None:
    torch.manual_seed(0)
    agent, stream, _ = tiny_agent(*CARTPOLE, f"memory={memory}", "curiosity=icm", "target=ema")
    used = []
    for update in range(3):
        (roll,) = rollouts(agent, stream, 1)
        used.append(statistics(agent))
        out = agent.model(roll)
        torch.testing.assert_close(out.h, roll.h, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(out.z[:, :-1], roll.z, atol=1e-5, rtol=1e-5)
        with torch.no_grad():
            h = agent.model.encode_sequence(agent.model.encoder(roll.obs), roll)
            seen = agent.policy.see(roll.new_rows(roll.obs), out.z)
            params, values = agent.policy(roll.new_rows(h), seen)
        torch.testing.assert_close(values[..., 0], roll.value_ext, atol=1e-5, rtol=1e-5)
        logp, _ = agent.policy.dist.evaluate(params[:, :-1], roll.new_steps(roll.act), agent.policy.temperature)
        # the first rollout is acted in without statistics, by a nearly uniform policy
        torch.testing.assert_close(logp, roll.logp, atol=0.05 if update == 0 else 1e-5, rtol=0)
    stream.close()
    assert len(used[0]) == 2 * 4  # model, policy, slow copy of the target, features of the signal
    assert all(torch.equal(x, used[1][n]) for n, x in used[0].items())  # those of the first rollout
    assert not any(torch.equal(x, used[2][n]) for n, x in used[1].items())  # those of the first two


def test_units_and_offsets_do_not_matter() -> None:
    """Powers of two as units, so that both runs have the same rounding but for the offset."""
    latents, spreads = [], []
    for env_id in ("CartPole-v1", "tests/FarCartPole-v0"):
        torch.manual_seed(0)
        agent, stream, _ = tiny_agent(*CARTPOLE, f"env.id={env_id}", "policy=random", "data.rollout_length=32")
        (roll,) = rollouts(agent, stream, 1)
        stream.close()
        latents.append(agent.model.encoder.normalise(roll.new_steps(roll.obs)))
        spreads.append(latents[-1].std((0, 1)))
    torch.testing.assert_close(spreads[0], torch.ones(4), atol=0.02, rtol=0)
    torch.testing.assert_close(spreads[1], torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]), atol=0.02, rtol=0)
    assert latents[1].abs().max() < 10


def test_the_replay_keeps_raw_observations_and_an_update_one_set_of_statistics() -> None:
    torch.manual_seed(0)
    agent, stream, cfg = tiny_agent(*CARTPOLE, "data.replay_capacity=8", "data.replay_batch=1")
    seen = []
    for _ in range(2):
        for batch in minibatches(agent, stream, cfg):
            seen.append(statistics(agent))
            assert batch.model is not None and batch.model.obs[batch.model.valid].abs().max() < 4  # no z-scores
    raw = stream.replay.sample(4, torch.device("cpu"))[0]
    assert raw.obs[raw.valid][:, 2].abs().max() < 0.5  # rad: the angle is in its own unit
    stream.close()
    half = len(seen) // 2
    for first, last in ((0, half - 1), (half, len(seen) - 1)):
        assert all(torch.equal(x, seen[last][n]) for n, x in seen[first].items())


def test_statistics_are_frozen_in_evaluation() -> None:
    torch.manual_seed(0)
    agent, stream, _ = tiny_agent(*CARTPOLE, "curiosity=rnd")
    rollouts(agent, stream, 2)
    assert stream.env is not None and agent.obs_normalizer is not None
    freeze(agent, stream.env.num_envs)
    before = {n: x.clone() for n, x in agent.state_dict().items() if "standardise" in n or "moments" in n}
    for _ in run_episodes(agent, stream.env, EpisodeStats(4), context=4, rollout_length=8, greedy=False):
        pass
    stream.close()
    assert len(before) > 8 and all(torch.equal(x, agent.state_dict()[n]) for n, x in before.items())


def test_symbols_have_no_statistics() -> None:
    agent, stream, _ = tiny_agent()
    stream.close()
    assert agent.obs_normalizer is None and not statistics(agent)


def test_it_can_be_switched_off() -> None:
    agent, stream, _ = tiny_agent(*CARTPOLE, "encoder.normalise=false")
    stream.close()
    assert agent.obs_normalizer is None and agent.model.encoder.symlog
