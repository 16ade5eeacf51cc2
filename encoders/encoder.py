"""Base classes of encoders, and helpers shared by several of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import gymnasium as gym
import torch
from torch import Tensor, nn

Obs = Tensor | dict[str, Tensor]
M = TypeVar("M", bound=nn.Module)


class Encoder(nn.Module):
    """Base class of encoders, built as `Name(space, dim=...)`, which map raw observations to latents.

    The input is a tensor (*lead, *space.shape) of any numeric dtype, or a dict of them for a `Dict` space, with any
    leading dimensions, including empty ones. The encoder normalises the input itself and returns (*lead, *shape).

    Inheritance is optional: any module with `shape` and such a `forward` is accepted.
    """

    shape: tuple[int, ...]

    def forward(self, obs: Any) -> Tensor:
        """Map raw observations, leaves (*lead, *space.shape), to latents (*lead, *shape)."""
        raise NotImplementedError


class CodeEncoder(Encoder):
    """Base class of encoders of categorical values, whose observations are (cells, C) integer codes.

    num_values: number of values of each of the C components; codes range from 0 to num_values[c] - 1.
    """

    num_values: tuple[int, ...]

    def codes(self, obs: Tensor) -> Tensor:
        """Map raw observations (*lead, *space.shape) to int64 codes (*lead, cells, C)."""
        raise NotImplementedError

    def observation(self, codes: Tensor) -> Tensor:
        """Map codes (*lead, cells, C) back to raw observations (*lead, *space.shape)."""
        raise NotImplementedError


def module_name(key: str) -> str:
    """Return a name for the module of an observation's key, which may have dots or be a method's name."""
    name = key.replace(".", "/")
    return f"{name}/" if not name or hasattr(nn.ModuleDict, name) or name == "training" else name


def mismatch(encoder: str, space: gym.Space, allowed: str) -> ValueError:
    """Return the one-line error of an encoder for a space that it does not support."""
    return ValueError(f"encoder={encoder} with space={' '.join(str(space).split())}: allowed is {allowed}")


def over_leading(fn: Callable[[Tensor], Tensor], x: Tensor, dims: int) -> Tensor:
    """Apply fn, which maps (N, *event) to (N, ...), to x (*lead, *event) with `dims` event dimensions."""
    lead = x.shape[: x.ndim - dims]
    out = fn(x.flatten(0, len(lead) - 1) if lead else x[None])
    return out.reshape(*lead, *out.shape[1:])


def orthogonal(layer: M, gain: float = 2**0.5) -> M:
    """Initialise a layer in place with an orthogonal weight (Saxe et al. 2014) and zero bias, and return it.

    The gain of sqrt 2 preserves the scale through a ReLU.
    """
    nn.init.orthogonal_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def perceptron(sizes: Sequence[int]) -> nn.Sequential:
    """Return linear layers of these widths with ReLUs between them; the last layer has gain 1."""
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(sizes)):
        last = i == len(sizes) - 2
        layers += [orthogonal(nn.Linear(a, b), 1.0)] if last else [orthogonal(nn.Linear(a, b)), nn.ReLU()]
    return nn.Sequential(*layers)


@torch.no_grad()
def keep_second_moment(layers: nn.Sequential) -> None:
    """Scale the new layers of `perceptron` in place so that the mean square of their input is that of their output.

    An orthogonal layer with more outputs than inputs preserves the norm, and therefore shrinks each entry.
    """
    for layer in layers:
        if isinstance(layer, nn.Linear):
            layer.weight.mul_(max(1.0, layer.out_features / layer.in_features) ** 0.5)
