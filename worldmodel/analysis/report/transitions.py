"""Transitions of the counted episodes, without observations and latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from worldmodel.model.world_model import Outputs
from worldmodel.types import Rollout

POSITIONS = ("place", "agent_pos")  # keys of `Rollout.info`, (N, T+1, k); the first that exists counts


@dataclass
class Transitions:
    """n transitions, sorted by episode and in the order of time within an episode."""

    episode: np.ndarray  # (n,) index
    act: np.ndarray  # (n, *act_shape)
    rew_ext: np.ndarray  # (n,)
    rew_int: np.ndarray  # (n,) normalised and scaled
    end: np.ndarray  # (n,) bool
    trunc: np.ndarray  # (n,) bool
    skill_error: np.ndarray  # (n,) see `Outputs`
    skill_base: np.ndarray  # (n,)
    rew_hat: np.ndarray  # (n,) predicted reward
    end_hat: np.ndarray  # (n,) predicted probability of termination
    place: np.ndarray  # (n, k) after the transition; k is 0 where the environment does not report it

    @classmethod
    def of(cls, roll: Rollout, out: Outputs, number: Tensor, counted: Tensor) -> Transitions:
        """Counted transitions of a scored rollout; number and counted are (N, T)."""

        def take(x: Tensor) -> np.ndarray:
            return x[counted].cpu().numpy()

        nowhere = counted.new_zeros(len(counted), roll.num_new + 1, 0)
        place = next((roll.info[key] for key in POSITIONS if key in roll.info), nowhere)
        return cls(
            episode=take(number),
            **{name: take(roll.new_steps(getattr(roll, name))) for name in ("act", "rew_ext", "end", "trunc")},
            rew_int=take(roll.rew_int),
            skill_error=take(out.skill_error),
            skill_base=take(out.skill_base),
            rew_hat=take(out.pred.rew),
            end_hat=take(torch.sigmoid(out.pred.end)),
            place=take(place[:, 1:]),
        )

    @classmethod
    def join(cls, parts: Sequence[Transitions]) -> Transitions:
        """Transitions of several rollouts, which are in the order of time, sorted by episode."""
        joined = {f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)}
        order = np.argsort(joined["episode"], kind="stable")
        return cls(**{k: x[order] for k, x in joined.items()})

    @property
    def age(self) -> np.ndarray:
        """(n,) number of earlier transitions in the same episode."""
        first = np.searchsorted(self.episode, self.episode, side="left")
        return np.arange(len(self.episode)) - first

    def __getitem__(self, index: np.ndarray) -> Transitions:
        return Transitions(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def __len__(self) -> int:
        return len(self.episode)
