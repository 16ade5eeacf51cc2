"""Networks without gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class StopGradient(nn.Module):
    """Network that stays in evaluation mode and has no gradients, whatever the mode of the modules around it."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> StopGradient:
        super().train(mode)
        self.net.eval()
        return self

    @torch.no_grad()
    def forward(self, *args: Any) -> Tensor:
        return self.net(*args)
