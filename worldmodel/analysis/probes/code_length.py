"""Code lengths of symbols under adaptive models, in bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from worldmodel.analysis.probes.classifier import fit_softmax

# Ends of the blocks of an online code, in shares of the data (Voita & Titov 2020, section 2.2.2).
FRACTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)

Fit = Callable[[Tensor, Tensor, int], Callable[[Tensor], Tensor]]


def bits(log_probs: Tensor, symbols: Tensor) -> Tensor:
    """Code length (*lead) in bits of symbols (*lead) int64 under log_probs (*lead, A) in nats (Shannon 1948)."""
    return -log_probs.gather(-1, symbols[..., None]).squeeze(-1) / math.log(2)


def adaptive_bits(
    symbols: np.ndarray, alphabet: int, contexts: np.ndarray | None = None, alpha: float = 0.5
) -> np.ndarray:
    """Bits (T,) of each symbol under counts of the earlier symbols in its context.

    p(x | c) = (n_c(x) + alpha) / (n_c + alpha A) with counts of the earlier symbols. alpha = 1/2 is the estimator of
    Krichevsky & Trofimov (1981): T H + (A - 1)/2 log2 T + O(1) bits for T symbols of a memoryless source.

    Args:
        symbols: (T,) ints below `alphabet`, in the order in which they are sent.
        alphabet: number of symbols, A.
        contexts: (T,) ints of any size, which the receiver has before the symbol.
        alpha: initial count of each symbol.

    Raises:
        ValueError: for symbols outside the alphabet.
    """
    symbols = np.asarray(symbols, dtype=np.int64)
    if symbols.size and not 0 <= symbols.min() <= symbols.max() < alphabet:
        raise ValueError(f"symbols from {symbols.min()} to {symbols.max()}: allowed are 0 to {alphabet - 1}")
    contexts = np.zeros_like(symbols) if contexts is None else np.unique(contexts, return_inverse=True)[1]
    seen, seen_here = occurrences(contexts), occurrences(contexts * alphabet + symbols)
    return -np.log2((seen_here + alpha) / (seen + alpha * alphabet))


def occurrences(keys: np.ndarray) -> np.ndarray:
    """Number of earlier occurrences of each of the keys (T,): (T,)."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    first = np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(keys)]
    place = np.arange(len(keys))
    counts = np.empty(len(keys), dtype=np.int64)
    counts[order] = place - np.maximum.accumulate(np.where(first, place, 0))
    return counts


@dataclass
class CodeLength:
    """An online code of labels given features."""

    bits: float  # of all labels
    uniform_bits: float  # N log2 K: bits without a model
    ends: list[int]  # where each block ends
    block_bits: list[float]  # per label, by block

    @property
    def compression(self) -> float:
        """Ratio of the uniform code's length to this code's."""
        return self.uniform_bits / self.bits


def online_code(
    x: Tensor,
    labels: Tensor,
    classes: int,
    *,
    fractions: Sequence[float] = FRACTIONS,
    fit: Fit = fit_softmax,
    seed: int | None = 0,
) -> CodeLength:
    """Block-wise online (prequential) code length of labels given features: labels and probe together.

    The first block is sent uniformly; each later one with the probe that was fitted to all blocks before it (Blier &
    Ollivier 2018; Voita & Titov 2020). Information that is easy to extract costs few bits even with little data; random
    labels cost at least N log2 K.

    Args:
        x: features (N, D).
        labels: (N,) int64 below `classes`.
        classes: number of classes, K.
        fractions: ends of the blocks, in shares of the data.
        fit: `fit(x, labels, classes)` returns the map from features to log-probabilities in nats.
        seed: of the shuffle that makes rows exchangeable. None: keep their order.
    """
    count = len(x)
    if seed is not None:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).to(x.device)
        x, labels = x[order], labels[order]
    ends = sorted({min(count, max(1, round(f * count))) for f in (*fractions, 1.0)})
    block_bits, total = [math.log2(classes)], ends[0] * math.log2(classes)
    for start, end in pairwise(ends):
        log_probs = fit(x[:start], labels[:start], classes)(x[start:end])
        cost = float(bits(log_probs, labels[start:end]).double().sum())
        block_bits.append(cost / (end - start))
        total += cost
    return CodeLength(total, count * math.log2(classes), ends, block_bits)
