"""Crafter (Hafner 2021, arXiv 2109.06780) as a Gymnasium environment with its achievements in `info`."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import gymnasium as gym
import numpy as np


class InOrder(dict):
    """Set with insertion order."""

    def add(self, thing: Any) -> None:
        self[thing] = None

    def remove(self, thing: Any) -> None:
        del self[thing]


class Crafter(gym.Env):
    """Open world seen from above, (64, 64, 3) uint8, with 17 actions; needs the package `crafter`.

    An episode ends by death; gymnasium's wrapper limits its time. The same seed of a reset gives the same world.

    reward: with False all rewards are 0, as in the benchmark without reward.

    `info`: achievement_<name>, for each of the 22, True if this episode has unlocked it; agent_pos (2,), the player's
    cell.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, reward: bool = True, render_mode: str | None = None):
        import crafter

        self.render_mode = render_mode
        self._game = crafter.Env(reward=reward, length=None)
        self._names = list(crafter.constants.achievements)
        self.observation_space = gym.spaces.Box(0, 255, self._game.observation_space.shape, np.uint8)
        self.action_space = gym.spaces.Discrete(self._game.action_space.n)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        # the worlds depend on these two alone; a new game would load its pictures again
        self._game._seed, self._game._episode = int(self.np_random.integers(2**31)), 0
        obs = self._game.reset()
        self._put_in_order()
        return obs, self._info()

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, rew, end, _ = self._game.step(int(action))
        return obs, float(rew), bool(end), False, self._info()

    def render(self) -> np.ndarray:
        return self._game.render((256, 256))

    def _put_in_order(self) -> None:
        """Replace the sets of creatures by ordered ones.

        The game stores a chunk's creatures in a set, whose order is that of memory addresses, and draws from it.
        Without a fixed order the same seed and actions give different worlds.
        """
        world = self._game._world
        place = {obj: i for i, obj in enumerate(world._objects)}
        chunks = {key: sorted(objs, key=place.__getitem__) for key, objs in world._chunks.items()}
        world._chunks = defaultdict(InOrder, {key: InOrder.fromkeys(objs) for key, objs in chunks.items()})

    def _info(self) -> dict[str, Any]:
        player = self._game._player
        flags = {f"achievement_{name}": player.achievements[name] > 0 for name in self._names}
        return flags | {"agent_pos": np.array(player.pos)}
