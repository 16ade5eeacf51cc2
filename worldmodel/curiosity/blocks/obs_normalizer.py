"""Normalisation of observations by running statistics."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from encoders import Encoder
from worldmodel.running_stats import RunningMeanStd
from worldmodel.types import Obs, Sequences

CHUNK = 2**24  # numbers per update of the statistics


class ObsNormalizer(nn.Module):
    """Observations in units of their own spread: clip( (obs - mean) / std, -5, 5 ).

    The running statistics are per entry (Burda et al. 2018, RND). Fixed random networks need them, since they cannot
    adapt to the scale of their input. Categorical observations, whose encoder embeds their values, pass unchanged. So
    do integer images within a dictionary, which their encoder scales.

    encoder: takes the raw observations; it determines which of them are categorical. `space` is the space of the
    output.
    """

    def __init__(self, obs_space: gym.Space, encoder: Encoder, *, clip: float = 5.0):
        super().__init__()
        self.clip = clip
        nested = isinstance(obs_space, gym.spaces.Dict)
        spaces = dict(obs_space.spaces) if nested else {"": obs_space}
        parts = {key: encoder.part(key) for key in spaces} if nested else {"": encoder}
        scaled = [
            key
            for key, space in spaces.items()
            if isinstance(space, gym.spaces.Box)
            and not hasattr(parts[key], "num_values")
            and not (nested and np.issubdtype(space.dtype, np.integer))
        ]
        self.moments = nn.ModuleDict({_name(key): RunningMeanStd(spaces[key].shape) for key in scaled})
        self.scaled = scaled
        spaces |= {key: gym.spaces.Box(-np.inf, np.inf, spaces[key].shape, np.float32) for key in scaled}
        self.space = gym.spaces.Dict(spaces) if nested else spaces[""]

    @torch.no_grad()
    def update(self, roll: Sequences) -> None:
        """Update the statistics with the observations of a rollout's T new rows, each once."""
        valid = roll.new_steps(roll.valid)
        leaves = roll.obs if isinstance(roll.obs, dict) else {"": roll.obs}
        for key in self.scaled:
            moments, obs = self.moments[_name(key)], roll.new_steps(leaves[key])  # (B, T, *shape)
            rows = max(1, CHUNK // max(1, obs[:, 0].numel()))
            for x, real in zip(obs.split(rows, 1), valid.split(rows, 1), strict=True):
                moments.update(x, real)

    def forward(self, obs: Obs) -> Obs:
        """Map raw observations (*lead, *shape) to observations of `space`."""
        if isinstance(obs, dict):
            return {key: self._leaf(key, x) for key, x in obs.items()}
        return self._leaf("", obs)

    def _leaf(self, key: str, obs: Tensor) -> Tensor:
        name = _name(key)
        return self.moments[name](obs).clamp(-self.clip, self.clip) if name in self.moments else obs


def _name(key: str) -> str:
    """Return the name of a key's module, in which dots are not allowed."""
    return f"of_{key.replace('.', '/')}"
