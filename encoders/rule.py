"""The rule by which an encoder is chosen from the bounds and the shape of a space."""

from __future__ import annotations

from math import prod

import gymnasium as gym
import numpy as np

from encoders.conv import Conv
from encoders.discrete import Discrete
from encoders.encoder import Encoder, mismatch
from encoders.grid import Grid
from encoders.mlp import MLP

MINIGRID = (7, 7, 3)
"""Shape of MiniGrid's own observation. A shape cannot show whether it holds symbols, so no other one counts as such."""


MOST = 2**15
"""Numbers of the largest vector: the first layer of `MLP` has 256 weights for each."""


def leaf_encoder(space: gym.Space, dim: int = 128, normalise: bool = False) -> Encoder:
    """Return the encoder of a space that is not a Dict, by the first of these rules that applies.

    1. Discrete and MultiDiscrete: `Discrete`, a table.
    2. uint8 with bounds 0 to 255 and MiniGrid's own shape (7, 7, 3): `Grid`, symbols.
    3. uint8 with bounds 0 to 255, of shape (H, W), (H, W, C) or (C, H, W) with H and W from 16 and C from 1 to 4:
       `Conv`, an image.
    4. Any other Box of at most 32,768 numbers, and MultiBinary: `MLP`, a vector, which `normalise` applies to.

    Raises ValueError for other spaces.
    """
    if isinstance(space, gym.spaces.Discrete | gym.spaces.MultiDiscrete):
        return Discrete(space, dim)
    if isinstance(space, gym.spaces.Box):
        if is_bytes(space) and space.shape == MINIGRID:
            return Grid(space, dim)
        if is_bytes(space) and is_image(space.shape):
            return Conv(space, dim)
        if prod(space.shape) > MOST:
            raise mismatch(
                "auto",
                space,
                f"a uint8 image (H, W, C) of 1 to 4 channels or at most {MOST} numbers; or set encoder=mlp",
            )
    if isinstance(space, gym.spaces.Box | gym.spaces.MultiBinary):
        return MLP(space, dim, normalise=normalise)
    raise mismatch("auto", space, "Box, Discrete, MultiDiscrete, MultiBinary or Dict")


def is_bytes(space: gym.spaces.Box) -> bool:
    """Return True for uint8 with bounds 0 to 255 in every entry."""
    return space.dtype == np.uint8 and bool((space.low == 0).all() and (space.high == 255).all())


def is_image(shape: tuple[int, ...]) -> bool:
    """Return True for (H, W), (H, W, C) and (C, H, W) with sides from 16 and at most 4 channels."""
    if len(shape) == 2:
        return min(shape) >= 16
    return len(shape) == 3 and any(
        min(sides) >= 16 and 1 <= channels <= 4 for *sides, channels in (shape, (*shape[1:], shape[0]))
    )
