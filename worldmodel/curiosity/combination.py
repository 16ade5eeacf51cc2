"""Combinations of several signals."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor, nn

from worldmodel.curiosity.base import AgentSpec, Curiosity
from worldmodel.curiosity.reward_normalizer import RewardNormalizer
from worldmodel.model.world_model import Outputs
from worldmodel.types import Rollout, Sequences


class Combination(Curiosity):
    """Base class of combinations of named signals.

    The name of a part is the prefix of its losses: the loss `rnd` of a part named `rnd` is `rnd_rnd`.

    Raises ValueError if `parts` is empty.
    """

    def __init__(self, spec: AgentSpec, *, parts: dict[str, Callable[[AgentSpec], Curiosity]]):
        super().__init__(spec)
        if not parts:
            raise ValueError("curiosity.parts={}: allowed is one signal or more")
        self.parts = nn.ModuleDict({name: part(spec) for name, part in parts.items()})

    def rewards(self, roll: Rollout, out: Outputs) -> dict[str, Tensor]:
        """Return the raw rewards (N, T) of the parts, by name."""
        return {name: part.reward(roll, out) for name, part in self.parts.items()}

    def losses(self, roll: Sequences, out: Outputs) -> dict[str, Tensor]:
        return {f"{name}_{key}": x for name, part in self.parts.items() for key, x in part.losses(roll, out).items()}

    def update(self) -> None:
        for part in self.parts.values():
            part.update()


class WeightedSum(Combination):
    """Weighted sum of the parts, each divided by its spread: sum_i w_i r_i / s_i.

    s_i is the running std of the discounted sum of r_i, as in `RewardNormalizer`, so weights apply to signals of any
    unit. With normalise=false, s_i is 1.

    Raises ValueError if `weights` does not have exactly the names of `parts`.
    """

    def __init__(
        self,
        spec: AgentSpec,
        *,
        parts: dict[str, Callable[[AgentSpec], Curiosity]],
        weights: dict[str, float],
        normalise: bool = True,
        gamma: float = 0.99,
        horizon: float = 3e4,
    ):
        super().__init__(spec, parts=parts)
        if weights.keys() != self.parts.keys():
            raise ValueError(f"curiosity.weights={dict(weights)}: allowed is one for each of {', '.join(self.parts)}")
        self.weights = dict(weights)
        mode = "return" if normalise else "none"
        self.scales = nn.ModuleDict(
            {name: RewardNormalizer(spec.num_envs, normalise=mode, gamma=gamma, horizon=horizon) for name in self.parts}
        )

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        mask = roll.new_steps(roll.mask)
        scaled = {name: self.scales[name](raw, mask) for name, raw in self.rewards(roll, out).items()}
        return sum(self.weights[name] * x for name, x in scaled.items())


class Product(Combination):
    """Product of the parts, for example of an episodic and a lifelong signal.

    Such a product rewards observations that are new in this episode and not yet familiar from all others, as in NGU
    (Badia et al. 2020) and RIDE (Raileanu & Rocktaeschel 2020). Parts should be non-negative: the product of two
    negative rewards is positive.
    """

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        return reduce(torch.mul, self.rewards(roll, out).values())
