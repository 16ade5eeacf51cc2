"""Encoder chosen by the space."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium as gym

from encoders.dict import Dict
from encoders.encoder import Encoder
from encoders.rule import leaf_encoder


def auto_encoder(
    space: gym.Space,
    dim: int = 128,
    parts: dict[str, Callable[..., Encoder]] | None = None,
    normalise: bool = False,
) -> Encoder:
    """Return the encoder of a space by the rule of `leaf_encoder`; a Dict has one encoder per key.

    parts: of a Dict, encoders of single keys instead of those by the rule.
    normalise: vectors are in units of their running spread; see `MLP`.

    Raises ValueError for other spaces, and for `parts` of a space without keys.
    """
    if isinstance(space, gym.spaces.Dict):
        return Dict(space, dim, parts, normalise)
    if parts:
        raise ValueError(f"encoder.parts={sorted(parts)}: allowed for an observation without keys is {{}}")
    return leaf_encoder(space, dim, normalise)
