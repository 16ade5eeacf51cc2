"""Unit space of Box actions: bounds, one-sided and missing ones, whole numbers; what the engine receives."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from worldmodel.envs import make_env
from worldmodel.envs.unit_box import UnitBox

INF = np.inf
MIXED = Box(np.float32([10, 0, -INF, -INF]), np.float32([20, INF, 5, INF]))


class Received(gym.Env):
    """World that keeps the actions that it receives, and refuses those outside of its space."""

    observation_space = Box(-1, 1, (1,), np.float32)

    def __init__(self, space: Box):
        self.action_space, self.actions = space, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, act):
        assert self.action_space.contains(act), f"{act!r} not in {self.action_space}"
        self.actions.append(act)
        return np.zeros(1, np.float32), 0.0, False, False, {}


gym.register("Received-v0", entry_point=Received)


@pytest.mark.parametrize(
    ("raw", "unit", "expected"),
    [
        (Box(10, 20, (3,), np.float32), [-1, 0, 1], [10, 15, 20]),
        (Box(-50, 50, (3,), np.float32), [-1, 0.5, 1], [-50, 25, 50]),
        (Box(-1, 1, (3,), np.float64), [-1, 0.125, 1], [-1, 0.125, 1]),
        (MIXED, [-0.5, -1, 1, -7.5], [12.5, 0, 5, -7.5]),
        (MIXED, [1, 2, -1, 0], [20, 3, 3, 0]),
        (MIXED, [-3, -3, 3, 9], [10, 0, 5, 9]),  # beyond the bounds
        (Box(0, 4, (5,), np.int64), [-1, -0.6, 0, 0.3, 1], [0, 1, 2, 3, 4]),
        (Box(-3, np.iinfo(np.int32).max, (2,), np.int32), [-1, 4.2], [-3, 2]),  # the limit of a dtype is no bound
        (Box(0, 255, (2, 2), np.uint8), [[-1, 1], [0.2, -0.2]], [[0, 255], [153, 102]]),
        (Box(2, 2, (1,), np.float32), [0.7], [2]),
    ],
)
def test_unit_actions_map_to_the_bounds(raw: Box, unit: list, expected: list) -> None:
    act = UnitBox(raw).to_raw(np.array(unit, np.float32))
    assert act.dtype == raw.dtype and raw.contains(act)
    np.testing.assert_allclose(act, expected, rtol=1e-6)


def test_bounds_of_the_unit_space() -> None:
    space = UnitBox(MIXED)
    assert space.low.tolist() == [-1, -1, -INF, -INF] and space.high.tolist() == [1, INF, 1, INF]
    assert space.dtype == np.float32 and space.shape == MIXED.shape and not space.step.any()
    assert UnitBox(Box(0, 4, (2,), np.int64)).step.tolist() == [0.5, 0.5]
    assert UnitBox(Box(0, np.iinfo(np.int64).max, (2,), np.int64)).step.tolist() == [1, 1]
    assert UnitBox(Box(3, 3, (1,), np.int64)).step.tolist() == [0]


@pytest.mark.parametrize("space", [MIXED, Box(0, 4, (2,), np.int8), Box(-2.0, 2.0, (), np.float32)])
def test_the_engine_receives_the_mapped_action(space: Box) -> None:
    env = make_env("Received-v0", "gymnasium", 2, space=space)
    assert env.act_space == UnitBox(space)
    env.reset()
    act = torch.linspace(-1, 1, 2 * max(1, int(np.prod(space.shape)))).reshape(2, *space.shape)
    env.step(act)
    received = [worker.copy.env.unwrapped.actions[-1] for worker in env.venv.workers]
    np.testing.assert_array_equal(received, UnitBox(space).to_raw(act.numpy()))
    with pytest.raises(ValueError, match="actions of shape"):
        env.step(torch.zeros(2, 9))
    env.close()
