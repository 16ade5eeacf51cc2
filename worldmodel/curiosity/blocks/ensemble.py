"""Ensembles of networks, evaluated in parallel."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.encoder import orthogonal
from worldmodel.errors import check_range


class EnsembleLinear(nn.Module):
    """`count` independent linear layers: (count or 1, rows, inputs) -> (count, rows, outputs).

    Each layer has its own orthogonal initialisation.
    """

    def __init__(self, count: int, inputs: int, outputs: int, gain: float = 2**0.5):
        super().__init__()
        members = [orthogonal(nn.Linear(inputs, outputs), gain).weight.detach().T for _ in range(count)]
        self.count = count
        self.weight = nn.Parameter(torch.stack(members))  # (count, inputs, outputs)
        self.bias = nn.Parameter(torch.zeros(count * outputs))  # a vector: the optimiser decays matrices

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias.view(self.count, 1, -1), x.expand(self.count, -1, -1), self.weight)


class Ensemble(nn.Module):
    """`count` perceptrons with SiLUs between the layers: (*lead, sizes[0]) -> (count, *lead, sizes[-1]).

    Raises ValueError if `count` is below 2.
    """

    def __init__(self, count: int, sizes: Sequence[int]):
        super().__init__()
        check_range("curiosity.members", count, "[2, inf)", whole=True)
        last = len(sizes) - 2
        self.layers = nn.ModuleList(
            EnsembleLinear(count, a, b, 1.0 if i == last else 2**0.5) for i, (a, b) in enumerate(pairwise(sizes))
        )

    def forward(self, x: Tensor) -> Tensor:
        lead = x.shape[:-1]
        x = x.flatten(0, -2)[None]
        for layer in self.layers[:-1]:
            x = F.silu(layer(x))
        return self.layers[-1](x).unflatten(1, lead)
