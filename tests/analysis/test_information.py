"""Entropies and mutual information against processes and Gaussians whose values are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers.hidden_markov import mess3, sample
from torch import Tensor

from worldmodel.analysis.probes.code_length import bits
from worldmodel.analysis.probes.information import (
    age,
    bias,
    bias_figure,
    block_curve,
    context_curve,
    context_figure,
    entropy,
    excess_entropy,
    gaussian_entropy,
    gaussian_information,
    mutual_information,
    predictive_information,
)

GOLDEN = np.array([[[0.0, 0.5], [0.0, 0.0]], [[0.5, 0.0], [1.0, 0.0]]])  # no two 0s (state 1 follows a 0)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_age_by_hand() -> None:
    assert age(torch.tensor([[4, 4, 5, 5, 5], [9, 8, 8, 7, 7]])).tolist() == [[0, 1, 0, 1, 2], [0, 0, 1, 0, 1]]


def test_curve_by_hand() -> None:
    cost = torch.tensor([[2.0, 1.0, 3.0, 1.0], [4.0, 2.0, 1.0, 99.0]])
    counted = torch.ones(2, 4, dtype=torch.bool)
    counted[1, 3] = False
    curve = context_curve(cost, age(torch.tensor([[0, 0, 1, 1], [2, 2, 2, 2]])), counted)
    assert curve.bits.tolist() == pytest.approx([3, 4 / 3, 1]) and curve.count.tolist() == [3, 3, 1]
    assert curve.error[0] == pytest.approx(1 / 3**0.5) and curve.rate(1) == pytest.approx(5 / 4)
    with pytest.raises(ValueError, match="least=3"):
        curve.rate(3)


def test_mess3_by_its_best_predictions() -> None:
    tokens, _, predicted = map(torch.from_numpy, sample(mess3(), streams=4000, rows=24))
    cost = bits(predicted.log(), tokens)
    curve = context_curve(cost, age(torch.zeros_like(tokens)))
    optimal = torch.tensor([1.0986, 0.8577, 0.8134, 0.7981, 0.7947, 0.7938]).double() / math.log(2)
    torch.testing.assert_close(curve.bits[:6], optimal, atol=0.05, rtol=0)
    assert (curve.bits[:6] - optimal).abs().div(curve.error[:6].clamp_min(1e-4)).max() < 4
    rate = curve.rate(8)
    assert rate == pytest.approx(1.144717, rel=0.01)
    # the area needs exact predictions: averaging what is predicted leaves out the noise of the tokens
    exact = -(predicted * predicted.log2()).sum(-1).mean(0)
    assert excess_entropy(exact[:20], 1.144717) == pytest.approx(0.571, rel=0.02)
    assert len(context_figure(exact, 1.144717, 1.144717).axes[0].lines) == 3


def test_golden_mean_by_counting() -> None:
    tokens = torch.from_numpy(sample(GOLDEN, streams=20, rows=5000)[0])
    curve = block_curve(tokens, 6)
    assert curve[0] == pytest.approx(0.9183, abs=0.005) and curve[1:].tolist() == pytest.approx([2 / 3] * 5, abs=0.005)
    assert excess_entropy(curve, 2 / 3) == pytest.approx(0.2516, abs=0.02)
    information = predictive_information(torch.tensor([3.0, 2.0, 1.0]), 1.0)
    assert information.tolist() == [2, 3, 3]


def uniform(n: int, generator: torch.Generator) -> tuple[Tensor]:
    return (torch.bincount(torch.randint(16, (n,), generator=generator), minlength=16),)


def test_bias_of_discrete_estimators() -> None:
    methods = ("plug_in", "miller_madow", "grassberger")
    table = bias(uniform, {m: lambda c, m=m: entropy(c, m) for m in methods}, 4.0, [32, 512], trials=400)
    # too low by (K - 1) / 2N nats
    assert table["plug_in"][1] == pytest.approx(-15 / (2 * 512) / math.log(2), rel=0.1)
    for method in methods[1:]:
        assert abs(table[method][0]) < 0.3 * abs(table["plug_in"][0]) and abs(table[method][1]) < 2e-3
    assert len(bias_figure(table, [32, 512]).axes[0].lines) == 4


def test_entropies_by_hand() -> None:
    counts = torch.tensor([2, 1, 0, 1])
    assert entropy(counts, "plug_in") == pytest.approx(1.5)
    assert entropy(counts, "miller_madow") == pytest.approx(1.5 + 2 / 8 / math.log(2))
    # G(1) = -gamma - log 2, G(2) = 2 + G(1)
    g1 = -0.5772156649 - math.log(2)
    assert entropy(counts, "grassberger") == pytest.approx((math.log(4) - (2 * (2 + g1) + 2 * g1) / 4) / math.log(2))
    with pytest.raises(ValueError, match="method=guess: allowed are plug_in, miller_madow, grassberger"):
        entropy(counts, "guess")
    with pytest.raises(ValueError, match="all are zero"):
        entropy(torch.zeros(3))


def test_information_of_a_noisy_copy() -> None:
    x = torch.randint(2, (50_000,))
    y = torch.where(torch.rand(50_000) < 0.11, 1 - x, x)  # a binary symmetric channel: 1 - H(.11) = .5 bits
    assert mutual_information(x, y) == pytest.approx(0.5, abs=0.01)
    assert mutual_information(x, torch.randint(9, (50_000,))) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.95])
def test_information_of_gaussians(rho: float) -> None:
    x = torch.randn(50_000)
    y = rho * x + (1 - rho**2) ** 0.5 * torch.randn(50_000)
    assert gaussian_information(x, y) == pytest.approx(-0.5 * math.log2(1 - rho**2), abs=0.02)


def test_bias_of_the_gaussian_estimators() -> None:
    def draw(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.randn(n, 4, generator=generator), torch.randn(n, 3, generator=generator)

    both = {str(c): lambda x, y, c=c: gaussian_information(x, y, c) for c in (True, False)}
    table = bias(draw, both, 0.0, [40, 400], trials=300)
    assert table["False"][1] == pytest.approx(4 * 3 / (2 * 400) / math.log(2), rel=0.1)
    assert abs(table["True"][0]) < 0.05 * table["False"][0] and abs(table["True"][1]) < 1e-3
    mean = sum(gaussian_entropy(torch.randn(20, 5)) for _ in range(500)) / 500
    assert mean == pytest.approx(2.5 * math.log2(2 * math.pi * math.e), abs=0.1)
    with pytest.raises(ValueError, match="5 samples of 5 dimensions: allowed are at least 6"):
        gaussian_entropy(torch.randn(5, 5))
