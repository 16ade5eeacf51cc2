"""Code lengths: what it costs to send symbols to someone who learns along with you. In bits."""

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
    """Code length of each symbol under a predictive distribution: log_probs (*lead, A) in nats, symbols (*lead) int64
    -> (*lead) bits (Shannon 1948)."""
    return -log_probs.gather(-1, symbols[..., None]).squeeze(-1) / math.log(2)


def adaptive_bits(
    symbols: np.ndarray, alphabet: int, contexts: np.ndarray | None = None, alpha: float = 0.5
) -> np.ndarray:
    """Bits of each symbol under counts that are updated after it, each context with counts of its own.

    p(x | c) = (n_c(x) + alpha) / (n_c + alpha A), counts of what came before. alpha = 1/2 is the estimator of
    Krichevsky & Trofimov (1981): T H + (A - 1)/2 log2 T + O(1) bits for T symbols of a memoryless source.

    symbols (T,) ints below `alphabet`, in the order in which they are sent; contexts (T,) ints of any size, known to
    the receiver before the symbol -> (T,) float64.
    """
    symbols = np.asarray(symbols, dtype=np.int64)
    if symbols.size and not 0 <= symbols.min() <= symbols.max() < alphabet:
        raise ValueError(f"symbols from {symbols.min()} to {symbols.max()}: allowed are 0 to {alphabet - 1}")
    contexts = np.zeros_like(symbols) if contexts is None else np.unique(contexts, return_inverse=True)[1]
    seen, seen_here = occurrences(contexts), occurrences(contexts * alphabet + symbols)
    return -np.log2((seen_here + alpha) / (seen + alpha * alphabet))


def occurrences(keys: np.ndarray) -> np.ndarray:
    """How often each key came before, at each place: (T,) ints -> (T,)."""
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
    uniform_bits: float  # N log2 K: what they cost without a model
    ends: list[int]  # where each block ends
    block_bits: list[float]  # per label, by block

    @property
    def compression(self) -> float:
        """How many times shorter than the uniform code."""
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
    """Block-wise online (prequential) code length of labels given features: description length of labels *and* probe.

    The first block is sent uniformly; each later one with the probe that was fitted to all blocks before it (Blier &
    Ollivier 2018; Voita & Titov 2020). What is easy to extract costs few bits even with little data;
    random labels cost N log2 K and more.

    x (N, D), labels (N,) int64 below `classes`. Blocks are of exchangeable rows, so rows are shuffled with `seed`;
    None keeps their order. `fit(x, labels, classes)` returns the map from features to log-probabilities in nats.
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
