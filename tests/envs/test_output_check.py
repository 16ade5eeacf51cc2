"""What environments return: exact values after a cast, one line for each kind of fault, and the entries of info."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from helpers.runs import record

from worldmodel.envs import TooManyFaults, info_entries, make_env
from worldmodel.envs.engines import fault_tolerant_vector
from worldmodel.envs.info_entries import LARGEST
from worldmodel.envs.output_check import FaultyEnvironment, InvalidOutput, OutputCheck

VECTOR = Box(-1, 1, (2,), np.float32)
BYTES = Box(0, 255, (2,), np.uint8)
PAIR = Dict({"a": VECTOR, "b": Discrete(3, start=5)})


class Given(gym.Env):
    """Returns what it is given: `obs`, `rew`, `end` and `info`, or from step `late` on `late_obs`."""

    action_space = Discrete(2)

    def __init__(self, space=VECTOR, obs=(0.0, 0.5), rew=1.0, end=False, info=None, late=10**6, late_obs=None):
        self.observation_space, self.given = space, (obs, rew, end, info)
        self.late, self.late_obs = late, late_obs

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        self.t = 0
        return self._obs(), self._info()

    def step(self, action: int) -> tuple[Any, ...]:
        self.t += 1
        return self._obs(), self.given[1], self.given[2], False, self._info()

    def _obs(self) -> Any:
        return self.late_obs if self.t >= self.late else self.given[0]

    def _info(self) -> Any:
        info = self.given[3]
        return info(self) if callable(info) else {} if info is None else info


class FourValues(Given):
    """Has the interface of gym before 0.26."""

    def step(self, action: int) -> tuple[Any, ...]:
        obs, rew, end, _, info = super().step(action)
        return obs, rew, end, info


class Many(gym.vector.VectorEnv):
    """Two copies in one object."""

    metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}  # noqa: RUF012
    single_observation_space, single_action_space, num_envs, render_mode = VECTOR, Discrete(2), 2, None

    def __init__(self, num_envs: int, obs: Any = ((0, 0), (0, 0)), rew: Any = (1, 2), info: Any = None, **given: Any):
        self.given = np.array(obs), rew, info or {}

    def reset(self, *, seed=None, options=None):
        return np.zeros((2, 2), np.float32), {}

    def step(self, actions):
        obs, rew, info = self.given
        return obs, rew, np.zeros(2, bool), np.zeros(2, bool), info


gym.register("Given-v0", entry_point=Given, vector_entry_point=Many)
gym.register("FourValues-v0", entry_point=FourValues)


def given(num_envs: int = 2, vectorization: str = "sync", id: str = "Given-v0", **kwargs: Any):
    """An environment that returns given values."""
    ours = {k: kwargs.pop(k) for k in ("place", "info_keys", "max_faults") if k in kwargs}
    return make_env(id, "gymnasium", num_envs, vectorization=vectorization, kwargs=kwargs, **ours)


def act(env):
    return env.step(torch.zeros(env.num_envs, dtype=torch.long))


@pytest.mark.parametrize(
    ("space", "value", "expected", "dtype"),
    [
        (BYTES, np.array([0, 3]), [0, 3], np.uint8),  # int64
        (BYTES, np.array([0.0, 255.0]), [0, 255], np.uint8),
        (BYTES, [True, False], [1, 0], np.uint8),
        (VECTOR, np.array([0.1, -0.5]), [np.float32(0.1), -0.5], np.float32),  # float64, rounded
        (VECTOR, [1, 7], [1, 7], np.float32),  # outside of the box, which is allowed
        (VECTOR, torch.tensor([0.25, 0.5]), [0.25, 0.5], np.float32),
        (VECTOR, np.array([1e20, -1e30], np.float32), [np.float32(1e20), np.float32(-1e30)], np.float32),
        (VECTOR, np.array([1.0, 2.0], ">f4"), [1, 2], np.float32),
        (Discrete(3, start=5), np.array(7), 7, np.int64),
        (Discrete(3), np.uint8(2), 2, np.int64),
        (Discrete(3), 1.0, 1, np.int64),
        (Discrete(3), True, 1, np.int64),
        (MultiDiscrete([2, 3], start=[1, -1]), [2, -1], [2, -1], np.int64),
        (MultiBinary(2), np.array([True, False]), [1, 0], np.int8),
        (Tuple((Discrete(2), VECTOR)), [1, [0, 0]], None, None),
    ],
)
def test_lossless_casts(space, value, expected, dtype) -> None:
    checked = OutputCheck(space).obs(value)
    if expected is None:
        assert checked[0] == 1 and checked[1].dtype == np.float32
        return
    assert np.array_equal(checked, expected) and np.asarray(checked).dtype == dtype


@pytest.mark.parametrize(
    ("space", "value", "words"),
    [
        (BYTES, np.array([0, 256]), "observation of int64 values from 0 to 256: allowed are values of its dtype uint8"),
        (BYTES, np.array([-1, 0]), "int64 values from -1 to 0"),
        (BYTES, np.array([0.5, 0]), "float64 values from 0.0 to 0.5"),
        (BYTES, np.array([np.nan, 0]), "float64 values"),
        (VECTOR, np.zeros(3, np.float32), r"observation of shape \(3,\): allowed is \(2,\)"),
        (VECTOR, np.zeros((1, 2), np.float32), r"observation of shape \(1, 2\)"),
        (VECTOR, np.float32([0, np.nan]), "observation with values that are not finite"),
        (VECTOR, np.float32([0, np.inf]), "not finite"),
        (VECTOR, np.array([0, 1e300]), "not finite"),  # infinite as float32
        (Box(-1, 1, (40, 40), np.float32), np.full((40, 40), np.nan, np.float32), "not finite"),
        (VECTOR, None, "observation of None"),
        (VECTOR, "ab", "observation of type str"),
        (VECTOR, [[0], [0, 1]], "observation of type list"),
        (VECTOR, np.array([1 + 1j, 0]), "dtype complex128"),
        (VECTOR, np.array([None, 0]), "dtype object"),
        (Discrete(3), 3, "observation of 3: allowed are whole numbers from 0 to 2"),
        (Discrete(3, start=5), np.int32(4), "observation of 4: allowed are whole numbers from 5 to 7"),
        (Discrete(3), 0.5, "float64 values from 0.5 to 0.5"),
        (Discrete(3), np.array([1]), r"shape \(1,\): allowed is \(\)"),
        (MultiDiscrete([2, 3], start=[1, -1]), [1, 2], "values from 1 to 2, outside"),
        (MultiDiscrete([2, 3]), np.array([-1, 0]), "values from -1 to 0, outside"),
        (MultiBinary(2), [0, 2], "values from 0 to 2, outside"),
        (PAIR, {"a": np.zeros(2)}, "observation without the key 'b' of its space"),
        (PAIR, {"a": np.zeros(2), "b": 0}, r"observation\['b'\] of 0: allowed are whole numbers from 5 to 7"),
        (PAIR, np.zeros(2), "allowed is a dict with a, b"),
        (Tuple((Discrete(2), VECTOR)), (1,), "allowed is a tuple of 2"),
        (Dict({"in": PAIR}), {"in": {"a": np.zeros(3), "b": 5}}, r"observation\['in'\]\['a'\] of shape \(3,\)"),
    ],
)
def test_observations_that_are_refused(space, value, words) -> None:
    with pytest.raises(InvalidOutput, match=words) as caught:
        OutputCheck(space).obs(value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "rew", [2, 2.0, True + 1, np.float32(2), np.array(2.0), np.array([2]), [[2.0]], torch.tensor([2.0]), np.int8(2)]
)
@pytest.mark.parametrize("end", [1, True, np.True_, np.array(True), np.array([1])])
def test_numbers_and_flags(rew, end) -> None:
    answer = OutputCheck(VECTOR).step((np.zeros(2), rew, end, np.bool_(False), {}))
    assert answer[1:4] == (2.0, True, False) and [type(x) for x in answer[1:4]] == [float, bool, bool]


@pytest.mark.parametrize(
    ("rew", "words"),
    [
        (None, "reward of None: allowed is one number"),
        ("1", "reward of type str"),
        (np.nan, "reward of nan"),
        (-np.inf, "reward of -inf"),
        (np.array([np.nan]), "reward of nan"),
        (np.array([1.0, 2.0]), r"reward of shape \(2,\)"),
        (np.array([]), r"reward of shape \(0,\)"),
        ({}, "reward of type dict"),
    ],
)
def test_rewards_that_are_refused(rew, words) -> None:
    with pytest.raises(InvalidOutput, match=words):
        OutputCheck(VECTOR).step((np.zeros(2), rew, False, False, {}))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((np.zeros(2), 0.0, None, False, {}), "terminated of None: allowed are true and false"),
        ((np.zeros(2), 0.0, False, 0.5, {}), "truncated of 0.5"),
        ((np.zeros(2), 0.0, False, "no", {}), "truncated of type str"),
        ((np.zeros(2), 0.0, False, False, None), "info of None: allowed is a dict"),
        ((np.zeros(2), 0.0, False, {}), r"step\(\) returns 4 values, allowed are 5"),
        (None, r"step\(\) returns one NoneType"),
    ],
)
def test_other_answers_that_are_refused(answer, words) -> None:
    with pytest.raises(InvalidOutput, match=words):
        OutputCheck(VECTOR).step(answer)


def test_reset_without_info() -> None:
    with pytest.raises(InvalidOutput, match=r"reset\(\) returns one ndarray, allowed are 2 values: obs, info"):
        OutputCheck(VECTOR).reset(np.zeros(3))


def test_values_arrive_exactly() -> None:
    env = given(space=BYTES, obs=np.array([1, 200]), rew=np.array([0.5]), end=np.False_)
    first, step = env.reset(), act(env)
    assert torch.equal(first, torch.tensor([[1, 200]] * 2, dtype=torch.uint8)) and torch.equal(step.obs, first)
    assert step.rew.tolist() == [0.5, 0.5] and not step.end.any() and step.fault is None


@pytest.mark.parametrize(("vectorization", "late"), [("sync", 0), ("sync", 3), ("async", 3)])
def test_a_fault_of_every_copy_is_one_line(vectorization: str, late: int, capfd) -> None:
    env = given(3, vectorization, space=BYTES, obs=[0, 1], late=late, late_obs=np.array([0, -7]))
    words = "^env.id=Given-v0: every copy fails within its first steps: observation of int64 values from -7 to 0"
    with pytest.raises(FaultyEnvironment, match=words):
        env.reset()
        for _ in range(late):
            act(env)
    assert capfd.readouterr().err == ""  # no warning of a replacement before it
    env.close()


def test_a_fault_of_every_copy_at_different_steps(capfd) -> None:
    """Each copy fails once, at the step of its level; the numbers in the messages differ."""
    env = given(3, late=3, late_obs=None)
    env.reset()
    for i, worker in enumerate(env.venv.workers):
        worker.copy.env.unwrapped.late = 1 + i
        worker.copy.env.unwrapped.late_obs = np.zeros(5 + i)
    assert act(env).fault.tolist() == [True, False, False]
    assert act(env).fault.tolist() == [False, True, False]
    with pytest.raises(FaultyEnvironment, match=r"observation of shape \(7,\)"):
        act(env)
    assert capfd.readouterr().err.count("warning") == 2


def test_a_single_copy_fails_twice_before_it_is_an_error(capfd) -> None:
    env = given(1, late=2, late_obs=None)
    env.reset(), act(env)
    assert act(env).fault.all()  # the new copy fails again, at its second step
    act(env)
    with pytest.raises(FaultyEnvironment, match="observation of None"):
        act(env)
    assert capfd.readouterr().err.count("\n") == 1


def test_later_faults_are_of_copies(monkeypatch) -> None:
    monkeypatch.setattr(fault_tolerant_vector, "FIRST_STEPS", 2)
    env = given(2, late=2, late_obs=None, max_faults=3)
    env.reset(), act(env)
    assert act(env).fault.all()
    act(env)
    with pytest.raises(TooManyFaults):
        act(env)


def test_old_interface() -> None:
    env = given(id="FourValues-v0")
    env.reset()
    with pytest.raises(FaultyEnvironment, match=r"step\(\) returns 4 values, allowed are 5"):
        act(env)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"obs": ((0, 0), (0, np.nan))}, "env.id=Given-v0: observation with values that are not finite"),
        ({"obs": ((0, 0, 0), (0, 0, 0))}, r"observation of shape \(2, 3\): allowed is \(2, 2\)"),
        ({"rew": (0, np.inf)}, "reward with values that are not finite"),
        ({"rew": None}, "reward of None"),
        ({"rew": 1.0}, r"reward of shape \(\): allowed is \(2,\)"),
    ],
)
def test_vector_environments(kwargs, words) -> None:
    env = given(vectorization="vector_entry_point", **kwargs)
    env.reset()
    with pytest.raises(FaultyEnvironment, match=words):
        act(env)


def test_vector_environments_are_cast() -> None:
    env = given(vectorization="vector_entry_point", obs=((0, 1), (2, 3)), info={"x": np.array([1, 2])})
    env.reset()
    step = act(env)
    assert step.obs.tolist() == [[0, 1], [2, 3]] and step.rew.tolist() == [1, 2] and step.info["x"].tolist() == [1, 2]


def entries(env: Given) -> dict[str, Any]:
    """Entries of every kind; `name` and `mixed` depend on the copy's random numbers or its step."""
    return {
        "text": "abc", "nested": {"a": 1}, "list": [1, 2], "none": None, "object": np.array([None]), 3: 4, "": 5,
        "count": env.t, "place": np.array([env.t, 2.5]), "flag": np.bool_(True), "fault": 1.0, "huge": 10**30,
        "ragged": np.zeros(int(env.np_random.integers(1, 50))), "grows": np.zeros(1 + env.t),
        "image": np.zeros((64, 64, 3), np.uint8), "edge": np.zeros(LARGEST, np.uint8),
        "mixed": 0.5 if env.np_random.random() < 0.5 else 0,
    }  # fmt: skip


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_entries_of_info(vectorization: str, monkeypatch, capfd) -> None:
    monkeypatch.setattr(info_entries, "_warned", set())
    env = given(4, vectorization, info=entries)
    env.reset()
    assert env.info["count"].tolist() == [0] * 4
    steps = [act(env) for _ in range(3)]
    assert all(set(s.info) == {"count", "place", "flag", "fault", "edge", "mixed"} for s in steps[1:])
    info = steps[2].info
    assert info["count"].tolist() == [3] * 4 and info["place"].tolist() == [[3, 2.5]] * 4 and info["flag"].all()
    assert info["fault"].tolist() == [1.0] * 4 and steps[2].fault is None  # the environment's own entry
    mixed = np.stack([s.info["mixed"] for s in steps])
    assert set(np.unique(mixed)) == {0.0, 0.5}  # not the type of the first copy
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 3 and all(line.startswith("warning: info['") for line in lines)
    assert {line.split("'")[1] for line in lines} == {"ragged", "grows", "image"}
    env.close()


def test_requested_entries_of_info() -> None:
    env = given(info=entries, info_keys=["image"])
    env.reset()
    assert act(env).info["image"].shape == (2, 64, 64, 3)
    env = given(info=entries, place=["place"])
    env.reset()
    assert act(env).info["place"].tolist() == [[1, 2], [1, 2]]
    for settings in ({"place": ["grows"]}, {"info_keys": ["grows"]}):
        env = given(info=entries, **settings)
        env.reset()
        name = f"env.{next(iter(settings))}"
        with pytest.raises(ValueError, match=rf"^{name}: info\['grows'\] has the shapes \(1,\) and \(2,\)"):
            act(env)


def test_a_place_that_ends() -> None:
    env = given(info=lambda env: {"x": 1} if env.t < 2 else {}, place=["x"])
    env.reset(), act(env)
    with pytest.raises(ValueError, match=r"^env.place=\['x'\]: x is not in info"):
        act(env)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (Box(-1, 1, (0,), np.float32), "the observation space .* has size 0"),
        (Box(-1, 1, (3, 0), np.float32), "has size 0"),
        (Dict({"a": VECTOR, "b": Box(0, 1, (0,))}), "has size 0"),
        (Dict({}), "has no numbers"),
        (Dict({"a": gym.spaces.Text(3)}), "has no numbers"),
    ],
)
def test_spaces_of_size_0(space, words) -> None:
    with pytest.raises(ValueError, match=f"^env.id='Given-v0': .*{words}"):
        given(space=space)


def test_a_run_with_a_faulty_environment(cli, tmp_path: Path, monkeypatch) -> None:
    """One line and exit code 2; a run whose entries of info are left out is not disturbed."""
    monkeypatch.setattr(info_entries, "_warned", set())
    given = ["env=base", "env.id=Given-v0", "encoder=mlp", "total_steps=32"]
    ended = cli(*given, "+env.kwargs.late=3", "run_dir=faulty")
    assert ended.code == 2 and ended.out == ""
    line = "error: env.id=Given-v0: every copy fails within its first steps: observation of None: allowed is an array"
    assert ended.err.startswith(line) and ended.err.count("\n") == 1
    assert record(tmp_path / "faulty")["status"] == "failed"
    monkeypatch.setitem(gym.registry["Given-v0"].kwargs, "info", entries)
    ended = cli(*given, "run_dir=noted")
    assert ended.code == 0 and ended.err.count("warning: info[") == 3
