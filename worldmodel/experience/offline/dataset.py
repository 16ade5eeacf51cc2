"""Recorded episodes as rows of `Sequences`, in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from worldmodel.envs.spaces import Translation
from worldmodel.types import Obs


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """E episodes as R rows one after the other, on the CPU.

    An episode of n steps has n + 1 rows as in `Sequences`: the last one has the final observation and no action. An
    episode that was neither terminated nor truncated where its record stops counts as truncated there.
    """

    translation: Translation  # of the recorded spaces
    obs: Obs  # (R, *obs_shape)
    act: Tensor  # (R, *act_shape)
    rew: Tensor  # (R,)
    end: Tensor  # (R,) bool
    trunc: Tensor  # (R,) bool
    mask: Tensor  # (R,) bool: False in the last row of each episode
    first: Tensor  # (E,) int64: first row of each episode
    env_id: str | None  # of the environment, if it was recorded

    @property
    def steps(self) -> int:
        """Number of recorded steps."""
        return int(self.mask.sum())

    @property
    def digest(self) -> str:
        """Return a hash of the episodes' lengths and rewards, by which a resumed run recognises its dataset."""
        data = self.first.numpy().tobytes() + self.rew.numpy().tobytes()
        return hashlib.sha256(data).hexdigest()

    def returns_to_go(self) -> Tensor:
        """Return the undiscounted sum of the rewards from each row to the end of its episode: (R,)."""
        sums = self.rew.double().flip(0).cumsum(0).flip(0)  # over all later rows
        last = torch.cat([self.first[1:], torch.tensor([len(self.rew)])]) - 1  # its reward is 0
        lengths = last + 1 - self.first
        return (sums - sums[last].repeat_interleave(lengths)).float()
