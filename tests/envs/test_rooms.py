"""Rooms of an episode: by hand, against the grid of MiniGrid, and after a checkpoint."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from helpers.coverage import rollout

from worldmodel.envs import make_env
from worldmodel.envs.metrics import Coverage
from worldmodel.envs.vector import Step
from worldmodel.envs.wrappers.rooms import DOOR, Rooms

ROOMS = {"id": "MiniGrid-MultiRoom-N2-S4-v0", "keys": ["image"], "rooms": True, "seed": 1}
NO = torch.zeros(1, dtype=torch.bool)


class Corridor:
    """One environment with a script of steps: cell, object and state of the cell ahead, whether the episode is new."""

    num_envs, null_action, resumable, time_limit = 1, None, False, None
    obs_space, act_space = Box(0, 255, (7, 7, 3), np.uint8), Discrete(7)

    def __init__(self, script: list[tuple[int, tuple[int, int], bool]]):
        self.script, self.info = iter(script), {}

    def _show(self) -> tuple[torch.Tensor, dict[str, np.ndarray], torch.Tensor]:
        x, (kind, state), new = next(self.script)
        obs = torch.ones(1, 7, 7, 3, dtype=torch.uint8)
        obs[0, 3, 5] = torch.tensor([kind, 2, state])
        return obs, {"agent_pos": np.array([[x, 1]])}, torch.tensor([new])

    def reset(self) -> torch.Tensor:
        obs, self.info, _ = self._show()
        return obs

    def step(self, act: torch.Tensor) -> Step:
        obs, info, new = self._show()
        return Step(obs, torch.zeros(1), NO, NO, new, info)


def test_by_hand() -> None:
    opened, closed, floor = (DOOR, 0), (DOOR, 1), (1, 0)
    script = [
        (1, closed, False), (1, opened, False), (1, opened, False),  # opens it, waits
        (2, floor, False), (3, floor, False),  # stands in the doorway, goes on
        (3, opened, False), (3, floor, False),  # faces another open door and turns away: not passed
        (4, floor, False), (4, opened, False), (1, opened, True), (2, floor, False),  # a new episode is no step
    ]  # fmt: skip
    env = Rooms(Corridor(script))
    env.reset()
    found = [env.info["room"][0].tolist()]
    found += [env.step(torch.zeros(1)).info["room"][0].tolist() for _ in script[1:]]
    assert found == [[0, 0]] * 3 + [[2, 1]] * 6 + [[0, 0], [2, 1]]


def test_rooms_are_those_of_the_grid() -> None:
    """A room is entered where the agent stands on a door, by the grid of the Python engine."""
    env = make_env(**ROOMS, engine="gymnasium", num_envs=8)
    env.reset()
    generator, passed = torch.Generator().manual_seed(0), 0
    for _ in range(400):
        before = env._room.copy()
        step = env.step(torch.tensor([2, 2, 2, 5, 5, 0, 1])[torch.randint(7, (8,), generator=generator)])
        for i, worker in enumerate(env.env.venv.workers):
            world = worker.copy.env.unwrapped
            cell = world.grid.get(*world.agent_pos)
            on = cell is not None and cell.type == "door"
            expected = world.agent_pos if on else [0, 0] if step.ignored[i] else before[i]
            assert step.info["room"][i].tolist() == list(expected)
            passed += on
    assert passed > 5


@pytest.mark.filterwarnings("ignore:env.engine=envpool")  # its levels are no MultiRoom, but have doors
def test_rooms_of_envpool_and_their_restored_state() -> None:
    env = make_env(**ROOMS, engine="envpool", num_envs=16)
    env.reset()
    generator, seen = torch.Generator().manual_seed(0), set()
    for _ in range(300):
        step = env.step(torch.tensor([2, 2, 2, 5, 5, 0, 1])[torch.randint(7, (16,), generator=generator)])
        seen |= {tuple(x) for x in step.info["room"].tolist()}
    assert len(seen) > 3 and (0, 0) in seen
    other = make_env(**ROOMS, engine="envpool", num_envs=16)
    other.load_state_dict(env.state_dict())
    assert all(np.array_equal(getattr(other, k), getattr(env, k)) for k in ("_room", "_cell", "_door"))


def test_counted_in_an_episode() -> None:
    metric = Coverage(key="room", name="rooms")
    roll = rollout([[0, 0, 4, 4, 0, 0]], [[0, 0, 0, 1, 0]])
    metric.add(roll)
    assert metric.summary() == {}, "info has no rooms"
    roll.info["room"] = roll.info.pop("place")
    metric.add(roll)
    assert metric.summary()["rooms_episode"] == 2


@pytest.mark.parametrize(("id", "words"), [("CartPole-v1", "allowed for observations with a view")])
def test_bad_input(id: str, words: str) -> None:
    with pytest.raises(ValueError, match=rf"env.rooms=True: {words}"):
        make_env(id, rooms=True)
