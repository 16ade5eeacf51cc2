"""Properties of an environment that the sizes of an agent depend on, and their form in checkpoints."""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple

from worldmodel.envs.flat import is_text, one_line
from worldmodel.envs.spaces import Translation
from worldmodel.envs.unit_box import UnitBox


class EnvSpec(NamedTuple):
    """Spaces of one copy of an environment, as published, and their translation from the environment's own."""

    obs_space: gym.Space
    act_space: gym.Space
    num_envs: int
    null_action: int | None
    translation: Translation | None = None  # None: for an agent without an environment of its own

    def to_dict(self) -> dict[str, Any]:
        """Return all but the number of copies as plain data, see `from_dict`."""
        own = None
        if self.translation is not None:
            obs, keys = self.translation.chosen
            act = space_to_dict(self.translation.raw_act_space)
            own = {"obs_space": space_to_dict(obs), "act_space": act, "keys": keys}
        return {
            "obs_space": space_to_dict(self.obs_space),
            "act_space": space_to_dict(self.act_space),
            "null_action": self.null_action,
            "translation": own,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any], num_envs: int) -> EnvSpec:
        """Return the spec of `to_dict`. Raises ValueError, KeyError or TypeError for other data."""
        own = data["translation"]
        if own is not None:
            own = Translation(space_from_dict(own["obs_space"]), space_from_dict(own["act_space"]), own["keys"])
        spaces = (space_from_dict(data[key]) for key in ("obs_space", "act_space"))
        return cls(*spaces, num_envs, data["null_action"], own)


def space_to_dict(space: gym.Space) -> dict[str, Any]:
    """Return a space as plain data that JSON can hold. Raises ValueError for an unsupported space."""
    kind = type(space).__name__
    if isinstance(space, UnitBox):
        return {"kind": "UnitBox", "raw": space_to_dict(space.raw)}
    if isinstance(space, Box):
        bounds = {name: _compact(getattr(space, name)) for name in ("low", "high")}
        return {"kind": "Box", "shape": list(space.shape), "dtype": str(space.dtype), **bounds}
    if isinstance(space, Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, MultiDiscrete):
        return {"kind": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, MultiBinary):
        return {"kind": "MultiBinary", "shape": list(space.shape)}
    if is_text(space):
        return {"kind": "Text"}
    if isinstance(space, Dict):
        return {"kind": "Dict", "entries": [[str(key), space_to_dict(child)] for key, child in space.items()]}
    if isinstance(space, Tuple):
        return {"kind": "Tuple", "entries": [space_to_dict(child) for child in space]}
    raise ValueError(f"space {one_line(space)}: {kind} cannot be stored in a checkpoint")


def space_from_dict(data: dict[str, Any]) -> gym.Space:
    """Return the space of `space_to_dict`. Raises ValueError, KeyError or TypeError for other data."""
    kind = data["kind"]
    if kind == "UnitBox":
        raw = space_from_dict(data["raw"])
        if isinstance(raw, Box):
            return UnitBox(raw)
    elif kind == "Box":
        dtype, shape = np.dtype(data["dtype"]), tuple(data["shape"])
        low, high = (np.broadcast_to(np.array(data[name], dtype), shape) for name in ("low", "high"))
        return Box(low, high, shape, dtype.type)
    elif kind == "Discrete":
        return Discrete(data["n"], start=data["start"])
    elif kind == "MultiDiscrete":
        return MultiDiscrete(np.array(data["nvec"]), start=np.array(data["start"]))
    elif kind == "MultiBinary":
        return MultiBinary(data["shape"])
    elif kind == "Text":
        return Text(1)
    elif kind == "Dict":
        return Dict([(key, space_from_dict(child)) for key, child in data["entries"]])
    elif kind == "Tuple":
        return Tuple([space_from_dict(child) for child in data["entries"]])
    raise ValueError(f"space of kind {kind!r}: allowed are Box, Discrete, MultiDiscrete, MultiBinary, Dict and Tuple")


def _compact(bound: np.ndarray) -> Any:
    """Return a bound as nested lists, or as one number if all entries are equal."""
    return bound.flat[0].item() if bound.size and (bound == bound.flat[0]).all() else bound.tolist()
