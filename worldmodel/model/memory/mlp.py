"""Memory-free control model, and the feed-forward block that it shares with the transformer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.errors import check_choice, check_range
from worldmodel.model.memory.base import Memory, State, check_capacity, check_positive
from worldmodel.model.memory.linear import Linear, drop, shrink

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "silu": F.silu, "relu": F.relu}


class Feedforward(nn.Module):
    """Pre-norm residual block x + W_2 f(W_1 norm(x)), initialised as one of `branches`."""

    def __init__(self, dim: int, ratio: int = 4, activation: str = "gelu", dropout: float = 0.0, branches: int = 1):
        super().__init__()
        check_positive(mlp_ratio=ratio)
        check_choice("memory.activation", activation, ACTIVATIONS)
        check_range("memory.dropout", dropout, "[0, 1)")
        self.norm = nn.LayerNorm(dim, bias=False)
        self.up, self.down = Linear(dim, ratio * dim), Linear(ratio * dim, dim)
        self.activation, self.dropout = ACTIVATIONS[activation], dropout
        shrink(self.down, branches)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (*lead, D) to (*lead, D)."""
        return x + drop(self.down(self.activation(self.up(self.norm(x)))), self.dropout, self.training)


class MLP(Memory[State]):
    """h_t = f(x_t), with as many residual blocks as a memory of that depth: the control without a memory."""

    def __init__(
        self,
        dim: int = 128,
        depth: int = 2,
        mlp_ratio: int = 4,
        activation: str = "gelu",
        dropout: float = 0.0,
    ):
        super().__init__()
        check_positive(dim=dim, depth=depth)
        self.dim = dim
        self.blocks = nn.ModuleList(Feedforward(dim, mlp_ratio, activation, dropout, depth) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, bias=False)

    def layers(self, x: Tensor, episode: Tensor, valid: Tensor) -> list[Tensor]:
        """See `Memory.layers`; rows do not interact, so `episode` and `valid` have no effect."""
        out = []
        for block in self.blocks:
            out.append(x := block(x))
        return [*out[:-1], self.norm(x)]

    @torch.no_grad()
    def prefill(self, x: Tensor, episode: Tensor, valid: Tensor, capacity: int) -> tuple[Tensor, State]:
        """See `Memory.prefill`."""
        check_capacity(x.shape[1], capacity)
        return self(x, episode, valid), State(capacity, x.shape[1])

    @torch.no_grad()
    def step(self, x: Tensor, episode: Tensor, valid: Tensor, state: State) -> Tensor:
        """See `Memory.step`."""
        state.advance()
        return self(x, episode, valid)
