"""Rollouts row by row, from an environment with known observations, and the resume of a stream."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from helpers.tiny import tiny_config

from worldmodel.envs import Step
from worldmodel.experience.collector import Episodes
from worldmodel.experience.stream import ExperienceStream
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.training.build import EnvSpec, build_agent
from worldmodel.training.datamodule import SequenceData

N, T, K = 3, 8, 4


class Clock:
    """Copy i observes (i, episode, step) and ends after 3 + i steps of reward step + 1; copy 2 is truncated instead."""

    obs_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    act_space = gym.spaces.Discrete(5)
    num_envs, null_action, resumable, time_limit, info = N, None, False, None, {}

    def __init__(self, seed: int = 0):
        self.seed, self.closed, self.spent = seed, False, False
        self.acts: list[torch.Tensor] = []

    def reset(self) -> torch.Tensor:
        self.episode, self.t = torch.zeros(N), torch.zeros(N)
        self.over = torch.zeros(N, dtype=torch.bool)
        return self.observe()

    def observe(self) -> torch.Tensor:
        return torch.stack([torch.arange(N).float(), self.episode, self.t], 1)

    def step(self, act: torch.Tensor) -> Step:
        self.acts.append(act.clone())
        ignored = self.over
        self.episode = self.episode + ignored
        self.t = torch.where(ignored, 0.0, self.t + 1)
        self.over = self.t == torch.arange(N) + 3
        cut = torch.arange(N) == 2
        return Step(self.observe(), self.t.clone(), self.over & ~cut, self.over & cut, ignored)

    def close(self) -> None:
        self.closed = True

    def record(self, path: Path | None = None, limit: int | None = None) -> None: ...

    def flush(self) -> None: ...

    def is_spent(self, steps: int) -> bool:
        return self.spent

    def state_dict(self) -> dict:
        return {}


def make_agent() -> CuriousAgent:
    """An untrained agent for the clock."""
    cfg = tiny_config("env=cartpole", "encoder=mlp", "encoder.hidden=[16]", "policy.actor.null_bias=0")
    return build_agent(cfg, EnvSpec(Clock.obs_space, Clock.act_space, N, None))


def make_stream(**settings) -> ExperienceStream:
    """An open stream of the clock, with an untrained agent that acts in it."""
    return open_clock(make_agent(), **settings)


def open_clock(agent: CuriousAgent, rank: int = 0, **settings) -> ExperienceStream:
    """An open stream of the clock, in which `agent` acts."""
    stream = SequenceData(Clock, **dict(rollout_length=T, context=K, minibatches=3) | settings).stream
    stream.open(agent.make_actor, rank=rank)
    return stream


def test_a_row_holds_an_observation_its_action_and_the_outcome() -> None:
    stream = make_stream()
    roll = stream.collector.collect()
    assert roll.num_new == T and roll.act.shape == (N, K + T + 1)
    assert not roll.valid[:, :K].any() and not roll.mask[:, :K].any()
    assert roll.valid[:, K:].all()
    # copy 0 by hand: steps 0 1 2 | terminal 3 | reset 0 1 2 | terminal 3 | reset 0
    assert roll.obs[0, K:, 2].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    assert roll.episode[0, K:].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2]
    assert roll.mask[0, K:].tolist() == [True, True, True, False, True, True, True, False, False]
    assert roll.end[0, K:-1].tolist() == [False, False, True, False, False, False, True, False]
    assert roll.rew_ext[0, K:-1].tolist() == [1, 2, 3, 0, 1, 2, 3, 0]
    assert roll.trunc[2, K:-1].tolist() == [False] * 4 + [True] + [False] * 3 and not roll.end[2].any()
    assert (roll.episode[:, K:] == roll.obs[:, K:, 1]).all()
    assert roll.act[:, K:-1].T.tolist() == [a.tolist() for a in stream.env.acts]
    assert not roll.mask[:, -1].any()


def test_the_next_rollout_begins_with_the_last_rows_of_this_one() -> None:
    stream = make_stream()
    first, second = stream.collector.collect(), stream.collector.collect()
    for name in ("obs", "act", "episode", "valid", "mask", "rew_ext", "end", "trunc"):
        before, after = getattr(first, name), getattr(second, name)
        assert torch.equal(after[:, :K], before[:, -K - 1 : -1]), name
    assert torch.equal(first.obs[:, -1], second.obs[:, K]) and torch.equal(first.episode[:, -1], second.episode[:, K])
    assert len(stream.env.acts) == 2 * T  # the closing row was not acted on
    assert first.obs.data_ptr() != second.obs.data_ptr()


def test_prev_act_and_starts() -> None:
    roll = make_stream().collector.collect()
    assert torch.equal(roll.prev_act[:, 1:], roll.act[:, :-1])
    starts = roll.valid & (roll.obs[..., 2] == 0)
    assert torch.equal(roll.starts[:, K:], starts[:, K:])


def test_episodes_by_hand() -> None:
    stream = make_stream(success=7.0)
    assert np.isnan(stream.collector.episodes.summary()["return_ext"])
    stream.collector.collect()
    # in 8 steps: copy 0 ends twice after 3 steps (1+2+3), copy 1 once after 4 (10), copy 2 once after 5 (15)
    summary = stream.collector.episodes.summary()
    assert summary == {"return_ext": (6 + 6 + 10 + 15) / 4, "length": (3 + 3 + 4 + 5) / 4, "success": 0.5}
    stream.collector.collect()
    # copy 0: 16 steps hold 4 episodes of 3 and their resets; copy 1: 3 of 4; copy 2: 2 of 5
    assert stream.collector.episodes.count == 9


def test_window_of_episodes() -> None:
    episodes = Episodes(1, window=2)
    for rew in (1.0, 2.0, 3.0):
        episodes.add(np.array([rew]), np.array([True]), np.array([False]))
    assert episodes.summary()["return_ext"] == 2.5 and np.isnan(episodes.summary()["success"])


@torch.no_grad()
def test_restart_keeps_the_rows_and_begins_new_episodes() -> None:
    agent = make_agent()
    stream = open_clock(agent)
    first = stream.collector.collect()
    stream.rollouts = 1
    state = stream.state_dict()
    again = open_clock(agent)
    old_env = again.env
    again.load_state_dict(state)
    assert old_env.closed and again.env.seed != old_env.seed, "the same episodes would come again"
    roll = again.collector.collect()
    # the context includes the closing observation, although its action was never taken
    assert torch.equal(roll.obs[:, :K], first.obs[:, -K:]) and torch.equal(roll.act[:, : K - 1], first.act[:, -K:-1])
    assert not roll.mask[:, K - 1].any() and roll.valid[:, K - 1].all()
    assert (roll.obs[:, K, 2] == 0).all() and (roll.episode[:, K] == first.episode[:, -1] + 1).all()
    torch.testing.assert_close(agent.model(roll).h, roll.h, atol=1e-5, rtol=0)
    assert again.collector.episodes.count == 4 + 4


@torch.no_grad()
def test_new_environments_at_the_limit_equal_a_restart_there() -> None:
    agent = make_agent()
    stream, again = open_clock(agent), open_clock(agent)
    for each in (stream, again):
        each.begin_update()
        each.collector.collect()
    state, old = again.state_dict(), stream.env
    again = open_clock(agent)
    again.load_state_dict(state)
    stream.env.spent = True
    stream.begin_update()
    one = stream.collector.collect()
    again.begin_update()
    two = again.collector.collect()
    assert old.closed and stream.env.seed == again.env.seed != old.seed and stream.begun == again.begun == 1
    for name, value in one.tensors().items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, getattr(two, name)), name
    assert not one.mask[:, K - 1].any() and one.valid[:, K - 1].all()
    assert str(stream.summary()) == str(again.summary()) and stream.collector.episodes.count > 0


def test_restart_with_another_window_begins_without_rows() -> None:
    stream = make_stream()
    stream.collector.collect()
    wider = make_stream(context=K + 1)
    wider.load_state_dict(stream.state_dict())
    assert not wider.collector.collect().valid[:, : K + 1].any()


def test_sampling_depends_on_seed_rank_and_update_alone() -> None:
    agent = make_agent()

    def draw(seed: int, rank: int, rollouts: int) -> float:
        stream = open_clock(agent, rank, seed=seed)
        stream.rollouts = rollouts
        stream.begin_update()
        return torch.rand(()).item()

    assert draw(0, 0, 5) == draw(0, 0, 5)
    assert len({draw(*x) for x in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]}) == 4


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rollout_length": 0}, "data.rollout_length=0: allowed"),
        ({"context": -1}, "data.context=-1: allowed"),
        ({"epochs": 0}, "data.epochs=0: allowed"),
        ({"minibatches": 0}, "data.minibatches=0: allowed"),
        ({"replay_batch": 1}, "data.replay_batch=1: allowed with data.replay_capacity=0 is 0"),
        ({"replay_batch": -1}, "data.replay_batch=-1: allowed"),
        ({"replay_capacity": -1}, "data.replay_capacity=-1: allowed"),
        ({"model_batch": 0}, "data.model_batch=0: allowed"),
        ({"model_every": 0}, "data.model_every=0: allowed"),
    ],
)
def test_bad_input(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SequenceData(Clock, **settings)
