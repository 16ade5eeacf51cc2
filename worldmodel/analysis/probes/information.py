"""Information of the past about the future, in bits: from a model's predictions, and from samples.

The estimators from samples have a known bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Method = Literal["plug_in", "miller_madow", "grassberger"]


def age(episode: Tensor) -> Tensor:
    """Number of earlier rows of the same episode (N, R); episode (N, R) holds numbers that change at each reset.

    Streams begin with an episode.
    """
    place = torch.arange(episode.shape[1], device=episode.device).expand_as(episode)
    fresh = torch.cat([torch.ones_like(episode[:, :1]), (episode[:, 1:] != episode[:, :-1]).long()], 1).bool()
    return place - torch.where(fresh, place, 0).cummax(1).values


@dataclass
class ContextCurve:
    """Entropy of the next symbol by the number of earlier symbols of the episode."""

    bits: Tensor  # (L,) mean code length with context 0, 1, ...; nan where there is no sample
    error: Tensor  # (L,) its standard error over samples
    count: Tensor  # (L,) samples

    def rate(self, least: int) -> float:
        """Entropy rate: mean bits of all symbols with at least `least` symbols of context."""
        count, bits = self.count[least:], self.bits[least:]
        if not count.sum():
            raise ValueError(f"least={least}: no symbol has so long a context, allowed are 0 to {len(self.bits) - 1}")
        return float((count * bits.nan_to_num()).sum() / count.sum())


def context_curve(bits: Tensor, context: Tensor, counted: Tensor | None = None) -> ContextCurve:
    """Mean code length h_L in bits of symbols by the length L of their context; all arguments are (N, R), or flat.

    Rows where `counted` is False are excluded. The model's h_L is an upper bound of the process's.
    """
    keep = slice(None) if counted is None else counted
    bits, context = bits[keep].double().flatten(), context[keep].flatten()
    size = int(context.max()) + 1
    count = torch.bincount(context, minlength=size).double()
    mean = torch.bincount(context, bits, size) / count
    squares = torch.bincount(context, (bits - mean[context]).square(), size)
    return ContextCurve(mean, (squares / (count - 1)).sqrt() / count.sqrt(), count)


def excess_entropy(curve: Tensor, rate: float) -> float:
    """E = sum over L >= 0 of (h_L - h): the information of the whole past about the whole future, in bits.

    It is the area between the curve (L,) and the entropy rate (Crutchfield & Feldman 2003). The curve begins with the
    entropy of a symbol without context; E is underestimated where the curve ends above its limit.
    """
    return float(predictive_information(curve, rate)[-1])


def predictive_information(curve: Tensor, rate: float) -> Tensor:
    """I(last L symbols; future), L = 1, 2, ...: the sum over l < L of h_l - h (Bialek et al. 2001)."""
    return (curve - rate).cumsum(0)


def entropy(counts: Tensor, method: Method = "miller_madow") -> float:
    """Entropy in bits of a discrete distribution from the counts of its values.

    - `plug_in`: of the observed shares; too low, by about (K - 1) / 2N nats for K values and N samples.
    - `miller_madow`: adds this bias with the observed K (Miller 1955); too low where most values are unobserved.
    - `grassberger`: log N - mean of G(n) (Grassberger 2003); less bias where counts are small.
    """
    n = counts.flatten()[counts.flatten() > 0].double()
    total = n.sum()
    if not total:
        raise ValueError("counts: all are zero, an entropy needs a sample")
    if method == "grassberger":
        sign = torch.where(n.long() % 2 == 0, 1.0, -1.0)
        g = torch.digamma(n) + 0.5 * sign * (torch.digamma((n + 1) / 2) - torch.digamma(n / 2))
        nats = total.log() - (n * g).sum() / total
    elif method in ("plug_in", "miller_madow"):
        nats = torch.special.entr(n / total).sum()
        if method == "miller_madow":
            nats = nats + (len(n) - 1) / (2 * total)
    else:
        raise ValueError(f"method={method}: allowed are plug_in, miller_madow, grassberger")
    return float(nats) / math.log(2)


def mutual_information(x: Tensor, y: Tensor, method: Method = "miller_madow") -> float:
    """I(X; Y) = H(X) + H(Y) - H(X, Y) in bits, of paired samples (M,) of integers. The plug-in estimate is too high."""
    x, y = (a.unique(return_inverse=True)[1] for a in (x, y))
    joint = torch.bincount(x * (int(y.max()) + 1) + y)
    return entropy(torch.bincount(x), method) + entropy(torch.bincount(y), method) - entropy(joint, method)


def block_curve(symbols: Tensor, longest: int, method: Method = "miller_madow") -> Tensor:
    """h_L = H(L + 1) - H(L) from counts of blocks, L = 0 to `longest` - 1: symbols (S, R) int64 -> (longest,) bits.

    Where there are as many different blocks as samples, h_L falls to 0 regardless of the process.
    """
    code = torch.zeros_like(symbols)
    before, curve = 0.0, []
    for length in range(1, longest + 1):
        code = code[:, : symbols.shape[1] - length + 1] * (int(symbols.max()) + 1) + symbols[:, length - 1 :]
        code = code.unique(return_inverse=True)[1]
        now = entropy(torch.bincount(code.flatten()), method)
        curve.append(now - before)
        before = now
    return torch.tensor(curve, dtype=torch.double)


def gaussian_entropy(x: Tensor, corrected: bool = True) -> float:
    """Differential entropy in bits of a Gaussian from samples x (M, D), M > D: 1/2 log det(2 pi e Sigma).

    log det of a sample covariance is too low by a known amount, digammas of its degrees of freedom (Misra et al.
    2005), which `corrected` adds. For other distributions it is an upper bound.
    """
    x = x.reshape(len(x), -1).double()
    free, width = len(x) - 1, x.shape[1]
    if free < width:
        raise ValueError(f"{len(x)} samples of {width} dimensions: allowed are at least {width + 1}")
    log_det = torch.linalg.slogdet(torch.cov(x.T).reshape(width, width)).logabsdet
    if corrected:
        halves = (free - torch.arange(width, dtype=x.dtype, device=x.device)) / 2
        log_det = log_det - (torch.digamma(halves) - math.log(free / 2)).sum()
    return float(0.5 * (log_det + width * math.log(2 * math.pi * math.e))) / math.log(2)


def gaussian_information(x: Tensor, y: Tensor, corrected: bool = True) -> float:
    """I(X; Y) in bits of jointly Gaussian samples x (M, D), y (M, E): -1/2 log2(1 - rho²) for D = E = 1.

    Without correction it is too high by about D E / 2M nats.
    """
    x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)
    parts = (gaussian_entropy(a, corrected) for a in (x, y, torch.cat([x, y], 1)))
    return next(parts) + next(parts) - next(parts)


def bias(
    draw: Callable[[int, torch.Generator], tuple[Tensor, ...]],
    estimators: dict[str, Callable[..., float]],
    truth: float,
    sizes: Sequence[int],
    trials: int = 50,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Mean of estimate minus truth, by estimator and sample size. All estimators have the same samples.

    `draw(n, generator)` returns an estimator's arguments.
    """
    table: dict[str, list[float]] = {name: [] for name in estimators}
    generator = torch.Generator().manual_seed(seed)
    for size in sizes:
        samples = [draw(size, generator) for _ in range(trials)]
        for name, estimate in estimators.items():
            table[name].append(sum(estimate(*sample) for sample in samples) / trials - truth)
    return table


def bias_figure(table: dict[str, list[float]], sizes: Sequence[int]) -> Figure:
    """Draw the bias against sample size, a line for each estimator."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axis = figure.subplots()
    for name, values in table.items():
        axis.plot(sizes, values, "o-", ms=3, label=name)
    axis.axhline(0, color="k", lw=0.6)
    axis.set(xscale="log", xlabel="samples", ylabel="estimate − truth (bits)")
    axis.legend()
    return figure


def context_figure(curve: Tensor, rate: float, truth: float | None = None) -> Figure:
    """Draw h_L by context length (L,), the entropy rate, and the area between them, the excess entropy."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axis = figure.subplots()
    lengths, values = range(len(curve)), curve.cpu().numpy()
    axis.plot(lengths, values, "o-", ms=3, label="h_L")
    axis.fill_between(lengths, values, rate, alpha=0.2, label=f"E = {excess_entropy(curve, rate):.3f} bits")
    axis.axhline(rate, color="C0", lw=0.8, ls="--", label=f"h = {rate:.4f}")
    if truth is not None:
        axis.axhline(truth, color="k", lw=0.8, label=f"known h = {truth:.4f}")
    axis.set(xlabel="context L (symbols)", ylabel="bits a symbol")
    axis.legend()
    return figure
