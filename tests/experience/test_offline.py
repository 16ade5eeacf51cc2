"""Invariant: recorded steps have the form of real ones, and nothing is lost between files and sequences."""

from __future__ import annotations

import json
from pathlib import Path

import gymnasium as gym
import h5py
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from helpers.tiny import tiny_agent
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from worldmodel.envs.spaces import Translation
from worldmodel.errors import ConfigError
from worldmodel.experience.offline import DatasetWriter, OfflineStream, read_dataset
from worldmodel.experience.offline.minari_files import assemble

CART = ("experiment=cartpole", "env.engine=gymnasium")


def write(folder: Path, obs_space: gym.Space, act_space: gym.Space, episodes: list[EpisodeBuffer]) -> Path:
    """A dataset as Minari itself writes it."""
    (folder / "data").mkdir(parents=True)
    storage = MinariStorage.new(folder / "data", obs_space, act_space, data_format="hdf5")
    storage.update_metadata({"dataset_id": "theirs/any-v0", "minari_version": "0.5.4"})
    storage.update_episodes(episodes)
    return folder


def buffer(obs, act, rew, end=None, trunc=None) -> EpisodeBuffer:
    n = len(rew)
    end = [False] * n if end is None else end
    trunc = [False] * n if trunc is None else trunc
    return EpisodeBuffer(observations=obs, actions=act, rewards=rew, terminations=end, truncations=trunc, infos={})


def cart_steps(n: int, first: float = 0.0) -> dict:
    obs = np.full((n + 1, 4), 0.0, np.float32) + np.arange(n + 1, dtype=np.float32)[:, None] / 100 + first
    return {"obs": obs, "act": np.arange(n) % 2, "rew": [float(i + 1) for i in range(n)]}


def test_rows_of_two_episodes(tmp_path):
    space = gym.make("CartPole-v1")
    ended = buffer(**cart_steps(2), end=[False, True])
    cut = buffer(**cart_steps(3, 0.5))  # its record stops without an end
    data = read_dataset(write(tmp_path, space.observation_space, space.action_space, [ended, cut]))
    assert data.mask.tolist() == [True, True, False, True, True, True, False]
    assert data.first.tolist() == [0, 3] and data.steps == 5
    assert data.end.tolist() == [False, True, False, False, False, False, False]
    assert data.trunc.tolist() == [False] * 5 + [True, False]
    assert data.act.tolist() == [0, 1, 0, 0, 1, 0, 0]
    assert data.returns_to_go().tolist() == [3, 2, 0, 6, 5, 3, 0]
    torch.testing.assert_close(data.obs[:, 0], torch.tensor([0.0, 0.01, 0.02, 0.5, 0.51, 0.52, 0.53]))


def test_other_peoples_spaces(tmp_path):
    obs_space = Dict(place=Box(-5.0, 5.0, (2,), np.float64), kind=Discrete(3, start=1), text=gym.spaces.Text(5))
    obs = {"place": np.ones((3, 2)), "kind": np.array([1, 3, 2]), "text": ["a", "b", "c"]}
    act_space = Box(np.array([-2.0, 0.0]), np.array([2.0, 1.0]), dtype=np.float64)
    act = np.array([[2.0, 0.5], [-2.0, 1.0]])
    data = read_dataset(write(tmp_path, obs_space, act_space, [buffer(obs, act, [0.0, 1.0])]))
    assert data.obs["kind"].tolist() == [0, 2, 1] and data.obs["place"].dtype == torch.float32
    assert sorted(data.obs) == ["kind", "place"]
    torch.testing.assert_close(data.act, torch.tensor([[1.0, 0.0], [-1.0, 1.0], [0.0, 0.0]]))
    keyed = read_dataset(tmp_path, keys=["place"])
    assert keyed.obs.shape == (3, 2)


def test_actions_there_and_back():
    act_space = Dict(a=Discrete(3, start=2), b=gym.spaces.MultiDiscrete([2, 4]))
    translation = Translation(Discrete(4), act_space)
    act = torch.tensor([[0, 1, 3], [2, 0, 0]])
    assert torch.equal(translation.read_actions(translation.write(act, 2, flat=False)), act)
    box = Translation(Discrete(4), Box(np.array([-1.0, 0.0]), np.array([3.0, np.inf]), dtype=np.float64))
    unit = torch.tensor([[0.5, 4.0], [-1.0, -1.0]])
    torch.testing.assert_close(box.read_actions(box.write(unit, 2, flat=False)), unit)


def test_uint8_grids_are_stored_without_loss(tmp_path):
    space, rng = Box(0, 255, (7, 7, 3), np.uint8), np.random.default_rng(0)
    obs = torch.from_numpy(rng.integers(0, 255, (3, 7, 7, 3), np.uint8))
    writer = DatasetWriter(tmp_path, space, Discrete(2), "MiniGrid-Empty-5x5-v0", {"worldmodel": {"seed": 3}})
    no = torch.zeros(2, dtype=torch.bool)
    writer.add(obs, np.array([0, 1]), torch.ones(2), no, torch.tensor([False, True]))
    data = read_dataset(tmp_path)
    assert torch.equal(data.obs, obs) and data.env_id == "MiniGrid-Empty-5x5-v0"
    about = json.loads((tmp_path / "data" / "metadata.json").read_text())
    assert about["worldmodel"] == {"seed": 3} and json.loads(about["env_spec"])["id"] == "MiniGrid-Empty-5x5-v0"
    with pytest.raises(ConfigError, match="has a dataset already"):
        DatasetWriter(tmp_path, space, Discrete(2), "MiniGrid-Empty-5x5-v0", {})


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"act": np.array([0])}, "other lengths"),
        ({"act": np.array([0, 2])}, "an action outside of Discrete"),
        ({"rew": [0.0, np.nan]}, "not finite"),
        ({"end": [True, True]}, "goes on after its end"),
        ({"rew": [], "act": np.zeros(0, int), "obs": np.zeros((1, 4), np.float32)}, "not a single step"),
    ],
)
def test_broken_episodes(change, reason):
    env = gym.make("CartPole-v1")
    episode = vars(buffer(**(cart_steps(2) | change)))
    with pytest.raises(ValueError, match=reason):
        assemble([episode], Translation(env.observation_space, env.action_space), None)


def test_broken_files(tmp_path):
    with pytest.raises(ConfigError, match=r"no dataset of Minari"):
        read_dataset(tmp_path)
    env = gym.make("CartPole-v1")
    path = write(tmp_path / "a", env.observation_space, env.action_space, [buffer(**cart_steps(2))])
    with h5py.File(path / "data" / "main_data.hdf5", "a") as file:
        del file["episode_0"]["rewards"]
    with pytest.raises(ConfigError, match="not a readable dataset"):
        read_dataset(path)
    (path / "data" / "main_data.hdf5").write_bytes(b"not this")
    with pytest.raises(ConfigError, match="not a readable dataset"):
        read_dataset(path)
    (path / "data" / "metadata.json").write_text(json.dumps({"data_format": "hdf5"}))
    with pytest.raises(ConfigError, match="its spaces are not in it"):
        read_dataset(path)


@pytest.fixture
def opened(tmp_path):
    env = gym.make("CartPole-v1")
    episodes = [buffer(**cart_steps(n, n / 10), end=[False] * (n - 1) + [True]) for n in (3, 5, 11)]
    data = read_dataset(write(tmp_path / "set", env.observation_space, env.action_space, episodes))
    agent, online, _ = tiny_agent(*CART)
    online.close()
    sizes = dict(rollout_length=8, context=4, replay_capacity=0, replay_priority=None, replay_dir=None)
    stream = OfflineStream(data, 4, **sizes, seed=0)
    stream.open(agent.make_actor)
    return agent, stream, data


def test_streams_go_through_whole_episodes(opened):
    _, stream, data = opened
    stream.begin_update()
    first, second = stream.source.collect(), stream.source.collect()
    assert not first.valid[:, :4].any() and first.valid[:, 4:].all()
    assert not first.mask[:, :4].any() and not first.mask[:, -1].any()
    for name in ("obs", "episode"):  # K + 1 rows overlap: the closing row is the first new row of the next rollout
        assert torch.equal(getattr(first, name)[:, 8:], getattr(second, name)[:, :5]), name
    for roll in (first, second):
        over = roll.end[:, 4:-1]
        assert torch.equal(roll.episode[:, 5:] - roll.episode[:, 4:-1], (~roll.mask[:, 4:-1]).long())
        assert not roll.mask[:, 5:][over].any()  # the true final observation follows an end
        to_go = roll.info["return_to_go"]
        real = roll.new_steps(roll.mask)
        torch.testing.assert_close((to_go[:, :-1] - to_go[:, 1:])[real], roll.new_steps(roll.rew_ext)[real])
    assert first.rew_ext.max() > 1 and data.steps == 19


def test_memory_equals_that_of_acting(opened):
    agent, stream, _ = opened
    stream.begin_update()
    stream.source.collect()
    roll = stream.source.collect()
    actor = agent.make_actor(4, 4, 8)
    actor.rows = roll.as_sequences().map(torch.clone)
    actor.cursor, h = 4, []
    actor.shift_window()
    for t in range(4, 12):
        actor.episode = roll.episode[:, t]
        h.append(actor.observe(roll.obs[:, t], actions=roll.act[:, t]).h)
        actor.rows.act[:, t] = roll.act[:, t]
    torch.testing.assert_close(torch.stack(h, 1), roll.h, atol=1e-5, rtol=1e-5)


def test_only_offline_steps_are_counted(opened):
    agent, stream, _ = opened
    stream.begin_update()
    roll = stream.source.collect()
    agent.score(roll, acted=False)
    assert int(agent.env_steps) == 0 and agent.steps == int(roll.new_steps(roll.mask).sum())
