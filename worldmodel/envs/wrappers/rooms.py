"""Rooms of a MiniGrid world, for counting the rooms visited."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from worldmodel.envs.vector import Step, VectorEnv
from worldmodel.envs.wrappers.base import Wrapper
from worldmodel.envs.wrappers.tiles import view_of
from worldmodel.errors import ConfigError
from worldmodel.types import Obs

DOOR, OPEN = 4, 0  # MiniGrid's codes of the object and of its state


class Rooms(Wrapper):
    """Wrapper that adds `info["room"]`, (N, 2) int64: the cell of the doorway in which the copy stood last.

    Before the first doorway of an episode it is (0, 0), a corner of the outer wall. The number of different values in
    an episode is the number of rooms visited, provided that each door leads to a separate room. Rooms without a door
    between them count as one.

    No engine provides the positions of the doors. A door is passed if the view showed an open door straight ahead and
    the copy's cell has changed.

    Raises ConfigError for observations without such a view, (7, 7, 3) or of another odd size, and if `info` lacks
    `agent_pos`.
    """

    def __init__(self, env: VectorEnv):
        super().__init__(env)
        view = view_of(env.obs_space, "env.rooms=True")
        self._key = "image" if isinstance(env.obs_space, gym.spaces.Dict) else None
        self._front = view.shape[0] // 2, view.shape[1] - 2  # the agent is in the middle of the last row
        self._cell = np.zeros((self.num_envs, 2), dtype=np.int64)
        self._room = np.zeros_like(self._cell)
        self._door = np.zeros(self.num_envs, dtype=bool)  # straight ahead, and open

    def reset(self) -> Obs:
        obs = super().reset()
        self.info = self.info | self._room_info(obs, self.info, np.ones(self.num_envs, dtype=bool))
        return obs

    def step(self, act: Tensor) -> Step:
        step = self.env.step(act)
        step.info = step.info | self._room_info(step.obs, step.info, step.ignored.numpy())
        return step

    def _room_info(self, obs: Obs, info: dict[str, np.ndarray], new: np.ndarray) -> dict[str, np.ndarray]:
        """Return the room of each copy; `new` (N,) bool: an episode begins here."""
        if "agent_pos" not in info:
            raise ConfigError(f"env.rooms=True: no agent_pos in info, only {', '.join(info) or 'nothing'}")
        cell = info["agent_pos"].reshape(self.num_envs, 2).astype(np.int64)
        passed = self._door & (cell != self._cell).any(1) & ~new
        self._room = np.where(new[:, None], 0, np.where(passed[:, None], cell, self._room))
        ahead = (obs if self._key is None else obs[self._key])[:, *self._front].numpy()
        self._cell, self._door = cell, (ahead[:, 0] == DOOR) & (ahead[:, 2] == OPEN)
        return {"room": self._room}

    def state_dict(self) -> dict[str, Any]:
        own = {"cell": self._cell, "room": self._room, "door": self._door}
        return {k: torch.from_numpy(v.copy()) for k, v in own.items()} | super().state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> bool:
        self._cell, self._room, self._door = (state[k].numpy().copy() for k in ("cell", "room", "door"))
        return super().load_state_dict(state)
