"""Adaptive order-k Markov coder, a baseline without a model of the environment."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worldmodel.analysis.probes.code_length import adaptive_bits


@dataclass
class MarkovCode:
    """The shortest of several Markov codes; the bits of the choice are not counted."""

    bits: float
    order: int  # earlier rows, in the same column
    beside: int  # earlier columns, in the same row
    by_column: bool  # whether each column has its own counts
    alpha: float  # initial value of each count


def markov_code(
    symbols: np.ndarray,
    *,
    orders: Sequence[int] = (0, 1, 2, 3, 4),
    beside: Sequence[int] = (0, 1, 2),
    alphas: Sequence[float] = (0.5, 0.05),
) -> MarkovCode:
    """The shortest adaptive Markov code of symbols (S, R, P): S streams of R rows of P columns.

    The context of a symbol is the k symbols before it in its column and the j before it in its row. Counts are shared
    by all streams and, if that is shorter, by all columns; they start at KT's 1/2, or lower for contexts with few
    successors. The alphabet is that of the observed symbols; its bits are not counted.
    """
    values, codes = np.unique(symbols, return_inverse=True)
    codes = codes.reshape(symbols.shape)
    columns = np.broadcast_to(np.arange(codes.shape[2]), codes.shape)
    best: MarkovCode | None = None
    for order, near in itertools.product(orders, [j for j in beside if j < codes.shape[2]]):
        context = contexts(codes, order, near)
        for by_column in (False, True) if codes.shape[2] > 1 else (False,):
            key = context * codes.shape[2] + columns if by_column else context
            sent = [x.transpose(1, 0, 2).reshape(-1) for x in (codes, key)]  # row by row, all streams together
            for alpha in alphas:
                cost = float(adaptive_bits(sent[0], len(values), sent[1], alpha).sum())
                if best is None or cost < best.bits:
                    best = MarkovCode(cost, order, near, by_column, alpha)
    return best


def contexts(codes: np.ndarray, order: int, beside: int) -> np.ndarray:
    """Number each context (S, R, P): the `order` earlier symbols of the column and the `beside` ones of the row.

    A place before the beginning of a stream counts as a further symbol.
    """
    alphabet = codes.max(initial=0) + 2
    context = np.zeros(codes.shape, dtype=np.int64)
    for axis, far in ((1, order), (2, beside)):
        for lag in range(1, far + 1):
            before = np.full(codes.shape, alphabet - 1, dtype=np.int64)
            if lag < codes.shape[axis]:
                here, there = [slice(None)] * 3, [slice(None)] * 3
                here[axis], there[axis] = slice(lag, None), slice(None, -lag)
                before[tuple(here)] = codes[tuple(there)]
            context = np.unique(context * alphabet + before, return_inverse=True)[1].reshape(codes.shape)
    return context
