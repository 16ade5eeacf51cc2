"""Embedding tables for categorical values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from encoders.encoder import orthogonal


class Index(nn.Module):
    """Row numbers of codes: codes (N, P) -> (N, P) int32.

    Position p ranges from 0 to num_values[p] - 1 and has its own rows. Raises ValueError for a code out of range. On
    CUDA, where the check would block the queue, an asynchronous assertion fails instead.
    """

    def __init__(self, num_values: Sequence[int], encoder: str):
        super().__init__()
        self.encoder, self.rows = encoder, sum(num_values)
        sizes = torch.tensor(num_values, dtype=torch.int32)
        self.register_buffer("top", sizes - 1, persistent=False)
        self.register_buffer("start", (sizes.cumsum(0) - sizes).int(), persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        codes = codes.int()
        wrong = (codes.clamp_min(0).minimum(self.top) != codes).any()
        if codes.is_cuda:
            torch._assert_async(~wrong, f"encoder={self.encoder}: a value is beyond num_values")
        elif wrong:
            where = ((codes < 0) | (codes > self.top)).nonzero()[0]
            value, top = int(codes[tuple(where)]), int(self.top[where[1]])
            raise ValueError(f"encoder={self.encoder}: num_values allows 0 to {top}, an observation holds {value}")
        return codes + self.start


class Table(nn.Module):
    """Sum of the rows of codes: codes (N, P) -> (N, dim).

    Equal to a linear map of the concatenated one-hot codes, without building them. The scale at initialisation gives
    outputs of unit second moment.
    """

    def __init__(self, num_values: Sequence[int], dim: int, encoder: str):
        super().__init__()
        self.index = Index(num_values, encoder)
        rows = self.index.rows
        gain = (max(rows, dim) / len(num_values)) ** 0.5
        linear = orthogonal(nn.Linear(dim, rows), gain)  # its weight is (rows, dim), the shape of the table
        self.weight, self.bias = linear.weight, nn.Parameter(torch.zeros(dim))

    def forward(self, codes: Tensor) -> Tensor:
        return _SumRows.apply(self.weight, self.index(codes)) + self.bias


class _SumRows(torch.autograd.Function):
    """`embedding_bag` in sum mode with a faster backward pass on CPUs.

    The gradient of a row is the sum of the output gradients of the samples that read it. These are again sums of rows,
    over lists that result from one sort of the indices. On 3072 views of 7x7x3 it is four times faster than the
    library's scatter and two and a half times faster than the matrix product with one-hot codes.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.rows = len(table)
        return F.embedding_bag(index, table, mode="sum")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        # torch sorts 16-bit integers faster
        dtype = torch.int16 if ctx.rows < 2**15 else torch.int32
        rows, order = index.to(dtype).flatten().sort(stable=True)
        starts = torch.searchsorted(rows, torch.arange(ctx.rows, dtype=dtype, device=rows.device))
        return F.embedding_bag(order // index.shape[1], grad.contiguous(), starts, mode="sum"), None
