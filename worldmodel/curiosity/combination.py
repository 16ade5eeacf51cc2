"""Several signals as one."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor, nn

from worldmodel.curiosity.base import Curiosity
from worldmodel.curiosity.reward_normalizer import RewardNormalizer
from worldmodel.model.world_model import Outputs
from worldmodel.types import Rollout


class Combination(Curiosity):
    """Signals by name. The losses of a part carry its name in front: `rnd_rnd` is that of a part `rnd`."""

    def __init__(self, parts: dict[str, Callable[..., Curiosity]], complete: Callable[..., Curiosity]):
        super().__init__()
        if not parts:
            raise ValueError("curiosity.parts={}: allowed is one signal or more")
        self.parts = nn.ModuleDict({name: complete(part) for name, part in parts.items()})

    def rewards(self, roll: Rollout, out: Outputs) -> dict[str, Tensor]:
        """Raw rewards (N, T) of the parts."""
        return {name: part.reward(roll, out) for name, part in self.parts.items()}

    def losses(self, roll: Rollout, out: Outputs) -> dict[str, Tensor]:
        return {f"{name}_{key}": x for name, part in self.parts.items() for key, x in part.losses(roll, out).items()}

    def update(self) -> None:
        for part in self.parts.values():
            part.update()


class WeightedSum(Combination):
    """The weighted sum of the parts, each in units of its own spread: sum_i w_i r_i / s_i.

    s_i is the running std of the discounted sum of r_i, as in `RewardNormalizer`, so that signals of any unit can be
    weighed against each other. With normalise=false, s_i is 1.
    """

    def __init__(
        self,
        parts: dict[str, Callable[..., Curiosity]],
        complete: Callable[..., Curiosity],
        num_envs: int,
        *,
        weights: dict[str, float],
        normalise: bool = True,
        gamma: float = 0.99,
        horizon: float = 3e4,
    ):
        super().__init__(parts, complete)
        if weights.keys() != self.parts.keys():
            raise ValueError(f"curiosity.weights={dict(weights)}: allowed is one for each of {', '.join(self.parts)}")
        self.weights = dict(weights)
        mode = "return" if normalise else "none"
        self.scales = nn.ModuleDict(
            {name: RewardNormalizer(num_envs, normalise=mode, gamma=gamma, horizon=horizon) for name in self.parts}
        )

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        mask = roll.tail(roll.mask)
        scaled = {name: self.scales[name](raw, mask) for name, raw in self.rewards(roll, out).items()}
        return sum(self.weights[name] * x for name, x in scaled.items())


class Product(Combination):
    """The product of the parts: an episodic signal times a lifelong one pays for what is new in this episode and not
    yet familiar from all others, as in NGU (Badia et al. 2020) and RIDE (Raileanu & Rocktaeschel 2020).

    A part that can be negative had better stand alone: the product of two losses would be a gain.
    """

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        return reduce(torch.mul, self.rewards(roll, out).values())
