"""Coverage of places: by hand, in MiniGrid, mazes and MuJoCo, and after a restart."""

from __future__ import annotations

from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from helpers.coverage import rollout
from helpers.rollouts import hand_made

from worldmodel.envs import make_env
from worldmodel.envs.metrics import Coverage, DoorSuccess
from worldmodel.types import Rollout


def test_by_hand() -> None:
    metric = Coverage()
    assert metric.summary() == {}
    metric.add(rollout([[0, 1, 1, 7], [0, 5, 1, 1]], [[0, 0, 1], [0, 0, 0]]))
    # first seen after 0, 2, 2 and 6 steps of 6: places 0, 1, 5, 7
    found = metric.summary()
    assert found["coverage"] == 4 and found["coverage_auc"] == (6 + 4 + 4 + 0) / 6
    assert found["coverage_episode"] == 3  # 0, 1, 7
    # copy 0 begins with the terminal row that was counted; copy 1 ends at an old place, then visits 9
    metric.add(rollout([[7, 0, 0, 2], [1, 0, 0, 9]], [[0, 0, 0], [0, 1, 0]]))
    found = metric.summary()
    assert found["coverage"] == 6 and found["coverage_auc"] == (12 + 10 + 10 + 6 + 0 + 0) / 12
    assert list(metric.finished) == [3, 3] and metric.running == {0: {(0,), (2,)}, 1: {(9,)}}


def test_no_place_is_not_counted() -> None:
    metric = Coverage()
    metric.add(rollout([[-1, 3, 3]], [[0, 1]]))
    assert metric.summary() == {"coverage": 1.0, "coverage_auc": 0.5, "coverage_episode": 1.0}


@pytest.mark.parametrize("running", [True, False])
def test_going_on(running: bool) -> None:
    rolls = [rollout([[0, 1, 1, 7], [0, 5, 1, 1]], [[0, 0, 1], [0, 0, 0]])]
    rolls.append(rollout([[7, 0, 0, 2], [1, 0, 0, 9]], [[0, 0, 0], [0, 1, 0]]))
    whole, first, second = Coverage(), Coverage(), Coverage()
    whole.add(rolls[0]), first.add(rolls[0])
    second.load_state_dict(first.state_dict(), running=running)
    assert whole.summary() == second.summary()
    whole.add(rolls[1]), second.add(rolls[1])
    if running:
        assert whole.state_dict()["running"].equal(second.state_dict()["running"])
        assert whole.summary() == second.summary()
    else:  # the interrupted episode is over: what was seen before counts, but not for the new one
        assert second.summary()["coverage"] == 6 and list(second.finished) == [3, 2]


@pytest.mark.parametrize("engine", ["envpool", "gymnasium"])
def test_places_of_minigrid(engine: str) -> None:
    env = make_env("MiniGrid-Empty-5x5-v0", engine, 1, keys=["image"], place=["agent_pos"])
    env.reset()
    walk = [env.info["place"].tolist()]
    walk += [env.step(torch.tensor([act])).info["place"].tolist() for act in (2, 2, 1, 2, 2, 0)]
    assert walk == [[[1, 1]], [[2, 1]], [[3, 1]], [[3, 1]], [[3, 2]], [[3, 3]], [[1, 1]]]


class Maze(gym.Env):
    """An agent with a place, as in MiniWorld."""

    observation_space, action_space = gym.spaces.Box(0, 1, (2,)), gym.spaces.Discrete(2)
    agent = SimpleNamespace(pos=None)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.agent = SimpleNamespace(pos=np.array([0.3, 0.0, 2.6]))
        return np.zeros(2, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.agent.pos[2] += 0.5 * action
        return np.zeros(2, np.float32), 0.0, False, False, {}


def test_places_of_mazes_are_bins() -> None:
    gym.register("OpenMaze-v0", Maze)
    env = make_env("OpenMaze-v0", num_envs=2, place=["agent_pos"])
    env.reset()
    walk = [env.info["place"].tolist()] + [env.step(torch.tensor([0, 1])).info["place"].tolist() for _ in range(2)]
    assert walk == [[[0, 0, 2]] * 2, [[0, 0, 2], [0, 0, 3]], [[0, 0, 2], [0, 0, 3]]]
    del gym.registry["OpenMaze-v0"]


def test_places_of_mujoco_are_bins() -> None:
    env = make_env("Ant-v5", num_envs=2, place=["x_position", "y_position"], place_width=0.01)
    env.reset()
    info = env.step(torch.rand(2, 8)).info
    expected = np.floor(np.stack([info["x_position"], info["y_position"]], 1) / 0.01)
    assert info["place"].dtype == np.int64 and np.array_equal(info["place"], expected)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"env.place=\['xyz'\]: xyz is not in info, allowed are .*agent_pos"):
        make_env("MiniGrid-Empty-5x5-v0", num_envs=1, place=["xyz"]).reset()
    with pytest.raises(ValueError, match=r"env.place_width=0: allowed are numbers above 0"):
        make_env("MiniGrid-Empty-5x5-v0", num_envs=1, place=["agent_pos"], place_width=0)


def in_rooms(room: list[list[int]], rew: list[list[float]], over: list[list[int]]) -> Rollout:
    """A rollout with rooms (N, T+1), and rewards and ends (N, T)."""
    end, rews = torch.zeros(len(over), len(over[0]) + 1, dtype=torch.bool), torch.zeros(len(rew), len(rew[0]) + 1)
    end[:, :-1], rews[:, :-1] = torch.tensor(over).bool(), torch.tensor(rew)
    info = {"room": torch.tensor(room)[..., None].expand(-1, -1, 2)}
    return hand_made(rew_ext=rews, end=end, mask=torch.ones_like(end), info=info)


def test_success_given_a_door_by_hand() -> None:
    whole, first = (DoorSuccess(success=0.0) for _ in range(2))
    assert whole.summary() == {}
    # copy 0: passes a door and fails; copy 1: succeeds without a door, then earns 1 and goes on
    one = in_rooms([[0, 3, 3, 0, 0], [0, 0, 0, 2, 2]], [[0, 0, 0, 0], [0, 1, 0, 1]], [[0, 1, 0, 0], [0, 1, 0, 0]])
    whole.add(one), first.add(one)
    assert whole.summary() == {"door_share": 0.5, "door_success": 0.0}
    # the episode of copy 1 ends: its door and its reward are of the rollout before
    two = in_rooms([[0, 0, 0], [2, 2, 0]], [[0, 0], [0, 0]], [[0, 1], [1, 0]])
    for running, share in ((True, 1 / 2), (False, 0.0)):
        second = DoorSuccess(success=0.0)
        second.load_state_dict(first.state_dict(), running)
        second.add(two)
        assert second.summary() == {"door_share": 0.5, "door_success": share}
    none = DoorSuccess()
    none.add(one)
    assert none.summary() == {}, "success is not defined"
