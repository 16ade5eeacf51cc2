"""What an encoder is, and the small parts that several of them share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol, TypeVar, runtime_checkable

import gymnasium as gym
from torch import Tensor, nn

Obs = Tensor | dict[str, Tensor]
M = TypeVar("M", bound=nn.Module)


@runtime_checkable
class Encoder(Protocol):
    """A module built as `Name(space, dim=...)` that turns raw observations into latents.

    It takes tensors of shape (*lead, *space.shape) of any numeric dtype (a dict of them for a `Dict` space),
    with any leading dimensions, empty ones included; it normalises them inside and returns (*lead, *shape).
    """

    shape: tuple[int, ...]

    def __call__(self, obs: Obs) -> Tensor: ...


def mismatch(encoder: str, space: gym.Space, allowed: str) -> ValueError:
    """The one-line error of an encoder that was given a space which it can't read."""
    return ValueError(f"encoder={encoder} with space={' '.join(str(space).split())}: allowed is {allowed}")


def over_leading(fn: Callable[[Tensor], Tensor], x: Tensor, dims: int) -> Tensor:
    """Apply fn, which maps (N, *event) to (N, ...), to x (*lead, *event) with `dims` event dimensions."""
    lead = x.shape[: x.ndim - dims]
    out = fn(x.flatten(0, len(lead) - 1) if lead else x[None])
    return out.reshape(*lead, *out.shape[1:])


def orthogonal(layer: M, gain: float = 2**0.5) -> M:
    """Orthogonal weight (Saxe et al. 2014), zero bias; the gain of sqrt 2 keeps the scale through a ReLU."""
    nn.init.orthogonal_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def perceptron(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers of these widths with ReLUs between them; the last one is linear, of gain 1."""
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(sizes)):
        last = i == len(sizes) - 2
        layers += [orthogonal(nn.Linear(a, b), 1.0)] if last else [orthogonal(nn.Linear(a, b)), nn.ReLU()]
    return nn.Sequential(*layers)
