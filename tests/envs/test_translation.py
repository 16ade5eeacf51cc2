"""Translation of spaces: starts, integer boxes, nested observations, joined actions; storage as plain data."""

from __future__ import annotations

import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, Graph, MultiBinary, MultiDiscrete, Sequence, Text, Tuple

from worldmodel.envs import make_env
from worldmodel.envs.spaces import Translation
from worldmodel.envs.spec import EnvSpec
from worldmodel.envs.unit_box import UnitBox

TWO = Discrete(2)
LINE = Box(-1, 1, (2,), np.float32)
OBSERVATIONS = {
    "start": (Discrete(3, start=5), Discrete(3), 6, 1),
    "multi start": (MultiDiscrete([3, 4], start=[1, -2]), MultiDiscrete([3, 4]), np.array([2, 1]), [1, 3]),
    "matrix": (MultiDiscrete([[3, 4], [5, 6]]), MultiDiscrete([3, 4, 5, 6]), np.array([[2, 0], [4, 5]]), [2, 0, 4, 5]),
    "binary": (MultiBinary((2, 2)), MultiDiscrete([2] * 4), np.array([[1, 0], [0, 1]], np.int8), [1, 0, 0, 1]),
    "integers": (Box(-3, 9, (2,), np.int32), Box(-3, 9, (2,), np.float32), np.array([-3, 9], np.int32), [-3.0, 9.0]),
    "one key": (Dict({"a": LINE}), LINE, {"a": np.array([0.5, 1], np.float32)}, [0.5, 1.0]),
    "one key and text": (Dict({"a": Discrete(3, start=1), "t": Text(9)}), Discrete(3), {"a": 2, "t": "words"}, 1),
    "tuple of one": (Tuple([Discrete(3, start=1)]), Discrete(3), (2,), 1),
    "nested": (
        Dict({"a": Dict({"b": LINE, "c": Text(3)}), "d": Tuple([Discrete(3, start=1), MultiBinary(2)])}),
        Dict({"a.b": LINE, "d.0": Discrete(3), "d.1": MultiDiscrete([2, 2])}),
        {"a": {"b": np.array([0.5, 1], np.float32), "c": "x"}, "d": (3, np.array([0, 1], np.int8))},
        {"a.b": [0.5, 1.0], "d.0": 2, "d.1": [0, 1]},
    ),
}
ACTIONS = {
    "start": (Discrete(3, start=10), Discrete(3), 2, 12),
    "multi start": (MultiDiscrete([3, 4], start=[1, -2]), MultiDiscrete([3, 4]), [0, 3], [1, 1]),
    "matrix": (MultiDiscrete([[3, 4], [5, 6]]), MultiDiscrete([3, 4, 5, 6]), [2, 0, 4, 5], [[2, 0], [4, 5]]),
    "binary": (MultiBinary((2, 2)), MultiDiscrete([2] * 4), [1, 0, 0, 1], [[1, 0], [0, 1]]),
    "integers": (Box(0, 4, (2,), np.int64), UnitBox(Box(0, 4, (2,), np.int64)), [-1.0, 0.5], [0, 3]),
    "one key": (Dict({"a": Discrete(3, start=1)}), Discrete(3), 2, {"a": 3}),
    "tuple": (Tuple([Discrete(3, start=1), MultiBinary(2)]), MultiDiscrete([3, 2, 2]), [2, 0, 1], (3, [0, 1])),
    "nested": (
        Dict({"a": Dict({"b": Discrete(2), "c": MultiDiscrete([[2], [3]])}), "d": Tuple([Discrete(4, start=-1)])}),
        MultiDiscrete([2, 2, 3, 4]),
        [1, 0, 2, 3],
        {"a": {"b": 1, "c": [[0], [2]]}, "d": (2,)},
    ),
    "boxes": (
        Tuple([Box(10, 20, (1,), np.float32), Box(0, np.inf, (2, 1), np.float64)]),
        UnitBox(Box(np.array([10, 0, 0]), np.array([20, np.inf, np.inf]), dtype=np.float64)),
        [0.5, -1.0, 1.0],
        ([17.5], [[0], [2]]),
    ),
}


def plain(value: object) -> object:
    """Lists and numbers instead of arrays and tensors."""
    if isinstance(value, dict):
        return {key: plain(x) for key, x in value.items()}
    if isinstance(value, tuple):
        return tuple(map(plain, value))
    return value.tolist() if hasattr(value, "tolist") else value


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("name", OBSERVATIONS)
def test_observations(name: str, stored: bool) -> None:
    raw, published, value, expected = OBSERVATIONS[name]
    assert raw.contains(value)
    translation = restored(Translation(raw, TWO)) if stored else Translation(raw, TWO)
    assert translation.obs_space == published
    tensors = translation.read_one(value)
    rows = {key: x[0] for key, x in tensors.items()} if isinstance(tensors, dict) else tensors[0]
    assert plain(rows) == expected


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("name", ACTIONS)
def test_actions(name: str, stored: bool) -> None:
    raw, published, act, expected = ACTIONS[name]
    translation = restored(Translation(TWO, raw)) if stored else Translation(TWO, raw)
    assert translation.act_space == published and type(translation.act_space) is type(published)
    action = translation.write_one(torch.tensor(act))
    assert raw.contains(action) and plain(action) == expected


def restored(translation: Translation) -> Translation:
    """The translation after storage as JSON."""
    spec = EnvSpec(translation.obs_space, translation.act_space, 3, None, translation)
    again = EnvSpec.from_dict(json.loads(json.dumps(spec.to_dict())), 3)
    assert again.obs_space == spec.obs_space and again.act_space == spec.act_space and again.num_envs == 3
    return again.translation


class Asked(gym.Env):
    """World that observes samples of its space and refuses actions outside of its space."""

    def __init__(self, obs: gym.Space, act: gym.Space):
        self.observation_space, self.action_space = obs, act

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, act):
        assert self.action_space.contains(act), f"{act!r} not in {self.action_space}"
        self.t += 1
        return self.observation_space.sample(), 1.0, self.t == 3, False, {}


gym.register("Asked-v0", entry_point=Asked)


@pytest.mark.parametrize("obs", OBSERVATIONS)
def test_environments_with_any_observation(obs: str) -> None:
    raw, published, *_ = OBSERVATIONS[obs]
    check_env(raw, published, TWO)


@pytest.mark.parametrize("act", ACTIONS)
def test_environments_with_any_action(act: str) -> None:
    check_env(LINE, LINE, ACTIONS[act][0])


def check_env(obs: gym.Space, published: gym.Space, act: gym.Space) -> None:
    """Run copies, restore their state, and compare."""
    env, again = (make_env("Asked-v0", "gymnasium", 2, obs=obs, act=act, max_faults=0) for _ in range(2))
    assert env.obs_space == published
    env.record()
    env.reset()
    for _ in range(5):
        drawn = torch.as_tensor(np.stack([env.act_space.sample() for _ in range(2)]))
        step = env.step(drawn)
        leaves = step.obs if isinstance(step.obs, dict) else {"": step.obs}
        for key, leaf in leaves.items():
            space = published[key] if key else published
            assert leaf.shape == (2, *space.shape) and all(space.contains(x.numpy()) for x in leaf)
    again.record()
    again.reset()
    again.load_state_dict(env.state_dict())
    for x in (env, again):
        x.close()


@pytest.mark.parametrize(
    ("obs", "act", "line"),
    [
        (Graph(LINE, None), TWO, "observation space Graph"),
        (Dict({"a": Sequence(TWO)}), TWO, "observation 'a' space Sequence"),
        (Dict({"t": Text(3)}), TWO, "has no numbers"),
        (Dict({"a": Dict({"b": TWO}), "a.b": TWO}), TWO, "two entries have the joined key 'a.b'"),
        (TWO, Text(3), "action space Text"),
        (TWO, Tuple([TWO, LINE]), "allowed in one space are discrete leaves, Boxes of real numbers, or Boxes of whole"),
        (TWO, Dict({"a": LINE, "b": Box(0, 3, (1,), np.int64)}), "combine them in a wrapper"),
        (TWO, Tuple([Text(3)]), "combine them in a wrapper"),
    ],
)
def test_refusals_are_one_line(obs: gym.Space, act: gym.Space, line: str) -> None:
    with pytest.raises(ValueError, match="space") as error:
        Translation(obs, act)
    assert line in str(error.value) and "\n" not in str(error.value)


def test_a_single_observation_is_checked() -> None:
    translation = Translation(Dict({"a": LINE, "b": TWO}), TWO)
    with pytest.raises(ValueError, match=r"entries a: b is missing"):
        translation.read_one({"a": np.zeros(2)})
    with pytest.raises(ValueError, match=r"observation a of shape \(3,\): allowed is \(2,\)"):
        translation.read_one({"a": np.zeros(3), "b": 0})
    one = Translation(Dict({"a": LINE, "b": TWO}), TWO, keys=["a"])
    assert one.read_one(np.float32([1, 0])).tolist() == one.read_one({"a": np.float32([1, 0])}).tolist() == [[1, 0]]
