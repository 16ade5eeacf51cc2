"""Bias-free linear layer that uses the faster of the CPU's two matrix libraries."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# oneDNN's float32 kernels are 5 to 12 % faster than MKL's from a few hundred rows on, and slower below (on Zen 4).
ROWS = 256
AVAILABLE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def product(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply x (*lead, I) by weight (O, I) with oneDNN: (*lead, O); float32 on a CPU only, not differentiable."""
    return torch.ops.mkldnn._linear_pointwise.default(x, weight, None, "none", [], "")


class OneDNN(torch.autograd.Function):
    """Product x W^T by oneDNN, with gradients.

    The gradient of W uses MKL, which needs no copy of the transposed operand.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        to_x = product(grad, weight.t()) if ctx.needs_input_grad[0] else None
        to_weight = grad.flatten(0, -2).t() @ x.flatten(0, -2) if ctx.needs_input_grad[1] else None
        return to_x, to_weight


class Linear(nn.Linear):
    """`nn.Linear` without a bias."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (*lead, inputs) to (*lead, outputs)."""
        fast = (
            AVAILABLE
            and x.device.type == "cpu"
            and x.dtype == torch.float32 == self.weight.dtype
            and x.numel() >= ROWS * self.in_features
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
        )
        return OneDNN.apply(x, self.weight) if fast else F.linear(x, self.weight)


@torch.no_grad()
def shrink(layer: nn.Linear, branches: int) -> None:
    """Scale the last layer of one of `branches` residual branches (GPT-2's initialisation)."""
    layer.weight.mul_(branches**-0.5)


def drop(x: Tensor, rate: float, training: bool) -> Tensor:
    """Apply dropout; without cost if the rate is 0 or in evaluation."""
    return F.dropout(x, rate) if training and rate else x
