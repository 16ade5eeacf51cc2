"""MiniGrid's view as pixels, from its symbols by a table of tiles."""

from __future__ import annotations

from functools import cache

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from worldmodel.envs.vector import Step, VectorEnv
from worldmodel.envs.wrappers.base import Wrapper
from worldmodel.errors import ConfigError, check_range
from worldmodel.types import Obs

SIZES = (11, 6, 4)  # MiniGrid's numbers of objects, colours and states
WIDEST = 15  # cells of a view; a picture has more pixels
UP = 3  # direction of the agent in its own view


class Tiles(Wrapper):
    """Wrapper that draws MiniGrid's symbolic view as an image (H * size, W * size, 3) uint8.

    The image equals that of MiniGrid's `RGBImgPartialObsWrapper` bit for bit: a tile is determined by its cell's
    symbols and by whether the agent stands in it. Each tile is drawn once, by MiniGrid's own code, and a view is one
    look-up. In a dict observation the view is the key `image`.

    size: pixels per cell and side.

    Raises ConfigError for observations without such a view, and for symbols that MiniGrid does not have.
    """

    def __init__(self, env: VectorEnv, size: int = 8):
        super().__init__(env)
        check_range("env.tile_size", size, "[2, 64]", whole=True)
        height, width, _ = view_of(env.obs_space, "env.pixels=True").shape  # rows of the array are columns of the image
        self.image = gym.spaces.Box(0, 255, (width * size, height * size, 3), np.uint8)
        self._dict = isinstance(env.obs_space, gym.spaces.Dict)
        self.obs_space = gym.spaces.Dict({**env.obs_space, "image": self.image}) if self._dict else self.image
        table, known = tiles(size)
        self._rows, self._known = torch.from_numpy(table).flatten(0, 1), torch.from_numpy(known)
        here = torch.zeros(height, width, dtype=torch.long)
        here[height // 2, width - 1] = len(known) // 2  # the agent, in the middle of the last row
        self._here = here
        self._lines = torch.arange(size)[:, None]

    def reset(self) -> Obs:
        return self._draw(super().reset())

    def step(self, act: Tensor) -> Step:
        step = self.env.step(act)
        step.obs = self._draw(step.obs)
        return step

    def _draw(self, obs: Obs) -> Obs:
        """Replace the symbols of a view by pixels."""
        if isinstance(obs, dict):
            return {**obs, "image": self.pixels(obs["image"])}
        return self.pixels(obs)

    def pixels(self, view: Tensor) -> Tensor:
        """Return the images (N, W * size, H * size, 3) of views (N, H, W, 3)."""
        cells = view.long()
        tile = (cells[..., 0] * SIZES[1] + cells[..., 1]) * SIZES[2] + cells[..., 2] + self._here
        if not self._known[tile.clamp(0, len(self._known) - 1)].all():
            wrong = cells[~self._known[tile.clamp(0, len(self._known) - 1)]][0].tolist()
            raise ConfigError(f"env.pixels=True: MiniGrid has no cell with the symbols {wrong}")
        lines = tile.transpose(1, 2)[:, :, None] * len(self._lines) + self._lines  # (N, W, size, H)
        return self._rows.index_select(0, lines.flatten()).view(len(view), *self.image.shape)


def view_of(space: gym.Space, setting: str) -> gym.spaces.Box:
    """Return the space of MiniGrid's symbolic view in an observation space.

    Raises:
        ConfigError: without such a view; the message starts with the `setting` that needs it.
    """
    view = space.spaces.get("image") if isinstance(space, gym.spaces.Dict) else space
    shape = () if view is None else view.shape or ()
    square = len(shape) == 3 and shape[0] == shape[1] <= WIDEST and shape[0] % 2 == 1 and shape[2] == 3
    if not square or view.dtype != np.uint8:
        raise ConfigError(f"{setting}: allowed for observations with a view of MiniGrid, not for {space}")
    return view


@cache
def tiles(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return all tiles (K, size, size * 3) uint8, and (K,) bool whether MiniGrid has such a cell.

    The index is that of object, colour and state, plus K / 2 where the agent stands in the cell.
    """
    try:
        from minigrid.core.constants import IDX_TO_OBJECT
        from minigrid.core.grid import Grid
        from minigrid.core.world_object import WorldObj
    except ImportError as error:
        raise ConfigError(f"env.pixels=True: needs the package minigrid ({error})") from None

    table = np.zeros((2, *SIZES, size, size * 3), dtype=np.uint8)
    known = np.zeros((2, *SIZES), dtype=bool)
    for here in (0, 1):
        direction = UP if here else None
        for index in np.ndindex(*SIZES):
            kind, colour, state = index
            name = IDX_TO_OBJECT[kind]
            blank = name in ("unseen", "empty")
            if name == "agent" or (blank and colour) or state > (2 if name == "door" else 0):
                continue
            cell = None if blank else WorldObj.decode(*index)
            drawn = Grid.render_tile(cell, agent_dir=direction, highlight=name != "unseen", tile_size=size)
            table[(here, *index)], known[(here, *index)] = drawn.reshape(size, size * 3), True
    return table.reshape(-1, size, size * 3), known.reshape(-1)
