"""Latents of a slow copy of the main encoder."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn

from encoders import Encoder
from worldmodel.errors import check_choice, check_range
from worldmodel.model.targets.base import LEARNT, Target
from worldmodel.types import Obs


class EMA(Target):
    """Exponential moving average of the main encoder's weights.

    slow <- decay * slow + (1 - decay) * fast, after each optimiser step (BYOL, Grill et al. 2020; BYOL-Explore, Guo et
    al. 2022). y carries no gradient; the main encoder learns through h alone. `normalise=l2` gives y unit length over
    its first dimension (the features of a vector, the channels of a map), as in BYOL-Explore.

    Raises ValueError for other values of `decay` and `normalise`.
    """

    scale_horizon = LEARNT

    def __init__(self, encoder: Encoder, *, decay: float = 0.99, normalise: Literal["none", "l2"] = "none"):
        super().__init__()
        check_range("target.decay", decay, "[0, 1]")
        check_choice("target.normalise", normalise, ("none", "l2"))
        self.slow = copy.deepcopy(encoder).requires_grad_(False)
        self.fast = (encoder,)  # a tuple is not registered by nn.Module: its weights belong to the world model
        self.decay, self.normalise = decay, normalise
        self.shape = encoder.shape
        self.train()

    def train(self, mode: bool = True) -> EMA:
        super().train(mode)
        self.slow.eval()
        return self

    @torch.no_grad()
    def forward(self, obs: Obs, z: Tensor) -> Tensor:
        y = self.slow(obs)
        return F.normalize(y, dim=-len(self.shape)) if self.normalise == "l2" else y

    def update(self) -> None:
        follow(self.slow, *self.fast, self.decay)


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, decay: float) -> None:
    """Move the weights of `slow` towards those of `fast`, in place: slow <- decay * slow + (1 - decay) * fast.

    Buffers are copied.
    """
    average = get_ema_multi_avg_fn(decay)
    average(list(slow.parameters()), list(fast.parameters()), None)
    for old, new in zip(slow.buffers(), fast.buffers(), strict=True):
        old.copy_(new)
