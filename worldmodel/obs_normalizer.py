"""Running statistics of observations, for the inputs of encoders and for signals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

import encoders
from encoders import Encoder, Standardise
from worldmodel.running_stats import RunningMeanStd
from worldmodel.types import Obs, Sequences

CHUNK = 2**24  # numbers per update of the statistics
NOISE = 1e-6  # spread of a constant, relative to its size, that is due to rounding


class ObsNormalizer(nn.Module):
    """Observations in units of their own spread: clip( (obs - mean) / std, -clip, clip ), per entry.

    The statistics have the same weight for all real rows so far, on all ranks, and change in `update` alone.

    shapes: shape of each entry of a dict observation that is normalised, by key; the key of another one is empty.
        Entries without a shape pass unchanged.
    clip: bound on the normalised values.
    unchanged_std: std of an entry that has never changed. 1 gives its first change the size that it has. A small value
        gives its first change the size `clip`, so that it counts as new.
    """

    moments: nn.ModuleDict

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], *, clip: float = 10.0, unchanged_std: float = 1.0):
        super().__init__()
        self.clip, self.unchanged_std = clip, unchanged_std
        self.keys = list(shapes)
        moments = {_name(key): RunningMeanStd(shape, horizon=math.inf) for key, shape in shapes.items()}
        self.moments = nn.ModuleDict(moments)

    @torch.no_grad()
    def update(self, roll: Sequences) -> None:
        """Update the statistics with the observations of a rollout's T new rows, each once."""
        valid = roll.new_steps(roll.valid)
        leaves = roll.obs if isinstance(roll.obs, dict) else {"": roll.obs}
        for key in self.keys:
            moments, obs = self._of(key), roll.new_steps(leaves[key])  # (B, T, *shape)
            rows = max(1, CHUNK // max(1, obs[:, 0].numel()))
            for x, real in zip(obs.split(rows, 1), valid.split(rows, 1), strict=True):
                moments.update(x, real)

    @property
    def empty(self) -> bool:
        """Return True if the statistics have no row yet."""
        return not any(bool(self._of(key).count > 0) for key in self.keys)

    def std(self, key: str = "") -> Tensor:
        """Return the standard deviation of an entry, above 0: (*shape)."""
        moments = self._of(key)
        std = moments.var.sqrt()
        return torch.where(std > NOISE * moments.mean.abs(), std, self.unchanged_std)

    @torch.no_grad()
    def publish(self, module: nn.Module) -> None:
        """Set the statistics of every encoder in `module` that reads observations through `Standardise`."""
        for part in module.modules():
            if isinstance(part, Standardise) and part.key in self.keys:
                part.mean.copy_(self._of(part.key).mean)
                part.std.copy_(self.std(part.key))

    def forward(self, obs: Obs) -> Obs:
        """Map raw observations (*lead, *shape), or a dict of them, to normalised ones; other entries are unchanged."""
        if isinstance(obs, dict):
            return {key: self._leaf(key, x) for key, x in obs.items()}
        return self._leaf("", obs)

    def _leaf(self, key: str, obs: Tensor) -> Tensor:
        if key not in self.keys:
            return obs
        return ((obs - self._of(key).mean) / self.std(key)).clamp(-self.clip, self.clip)

    def _of(self, key: str) -> RunningMeanStd:
        return cast(RunningMeanStd, self.moments[_name(key)])


def _name(key: str) -> str:
    """Return the name of a key's module, in which dots are not allowed."""
    return f"of_{key.replace('.', '/')}"


def input_normalizer(module: nn.Module) -> ObsNormalizer | None:
    """Return the normaliser for the encoders in `module` that read through `Standardise`, None if there are none."""
    shapes = {part.key: tuple(part.mean.shape) for part in module.modules() if isinstance(part, Standardise)}
    return ObsNormalizer(shapes) if shapes else None


def signal_normalizer(obs_space: gym.Space, encoder: Encoder, *, clip: float = 5.0) -> tuple[ObsNormalizer, gym.Space]:
    """Return a normaliser for fixed random networks, which cannot adapt to their input, and the space of its output.

    Images are normalised as well as vectors (Burda et al. 2018, RND). Categorical observations, whose encoder embeds
    their values, pass unchanged. So do integer images within a dictionary, which their encoder scales.

    encoder: takes the raw observations; it determines which of them are categorical.
    """
    nested = isinstance(obs_space, gym.spaces.Dict)
    spaces = dict(cast(gym.spaces.Dict, obs_space).spaces) if nested else {"": obs_space}
    parts = {key: cast(encoders.Dict, encoder).part(key) for key in spaces} if nested else {"": encoder}
    shapes = {
        key: space.shape
        for key, space in spaces.items()
        if isinstance(space, gym.spaces.Box)
        and not hasattr(parts[key], "num_values")
        and not (nested and np.issubdtype(space.dtype, np.integer))
    }
    spaces |= {key: gym.spaces.Box(-np.inf, np.inf, shape, np.float32) for key, shape in shapes.items()}
    normalizer = ObsNormalizer(shapes, clip=clip, unchanged_std=1e-4)
    return normalizer, gym.spaces.Dict(spaces) if nested else spaces[""]
