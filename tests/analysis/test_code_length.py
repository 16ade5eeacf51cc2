"""Code lengths in comparison with theory: KT, random labels and a known distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from worldmodel.analysis.probes.classifier import fit_perceptron
from worldmodel.analysis.probes.code_length import adaptive_bits, bits, occurrences, online_code


def test_bits_by_hand() -> None:
    log_probs = torch.tensor([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]]).log()
    torch.testing.assert_close(bits(log_probs, torch.tensor([1, 2])), torch.tensor([2.0, 3.0]))


def test_occurrences_by_hand() -> None:
    assert occurrences(np.array([5, 3, 5, 5, 3])).tolist() == [0, 0, 1, 2, 1]
    assert occurrences(np.array([], dtype=int)).tolist() == []


def test_kt_by_hand() -> None:
    # p(0) = 1/2, p(0|0) = 3/4, p(1|00) = (1/2) / 3
    np.testing.assert_allclose(adaptive_bits(np.array([0, 0, 1]), 2), -np.log2([1 / 2, 3 / 4, 1 / 6]))
    # two contexts count apart
    np.testing.assert_allclose(
        adaptive_bits(np.array([0, 0, 0]), 2, np.array([7, -9, 7])), -np.log2([1 / 2, 1 / 2, 3 / 4])
    )


@pytest.mark.parametrize("p", [0.5, 0.1])
def test_kt_costs_half_a_log_more_than_the_entropy(p: float) -> None:
    """T H + 1/2 log2 T + 1/2 log2(pi / 2) for the empirical H (Krichevsky & Trofimov 1981)."""
    total = 20_000
    x = (np.random.default_rng(0).random(total) < p).astype(int)
    share = x.mean()
    entropy = -(share * math.log2(share) + (1 - share) * math.log2(1 - share))
    over = adaptive_bits(x, 2).sum() - total * entropy
    assert over == pytest.approx(0.5 * math.log2(total) + 0.5 * math.log2(math.pi / 2), abs=0.01)


def test_symbols_outside_the_alphabet_are_refused() -> None:
    with pytest.raises(ValueError, match="symbols from 0 to 3: allowed are 0 to 2"):
        adaptive_bits(np.array([0, 3]), 3)


def test_random_labels_cost_as_much_as_without_a_model() -> None:
    torch.manual_seed(0)
    labels = torch.randint(4, (4000,))
    code = online_code(torch.randn(4000, 3), labels, 4)
    assert code.uniform_bits == 8000 and code.ends[-1] == 4000 and len(code.ends) == len(code.block_bits)
    assert 8000 < code.bits < 8000 + 3 * 12 * math.log2(4000) / 2  # a few times the price of 16 parameters
    total = sum(b * n for b, n in zip(code.block_bits, np.diff([0, *code.ends]), strict=True))
    assert total == pytest.approx(code.bits)


def test_labels_that_follow_from_features_cost_their_conditional_entropy() -> None:
    torch.manual_seed(0)
    x = torch.randn(8000, 2)
    p = torch.sigmoid(2 * x[:, 0])
    labels = torch.bernoulli(p).long()
    truth = float(bits(torch.stack([1 - p, p], 1).log(), labels).sum())
    code = online_code(x, labels, 2)
    assert truth < code.bits < truth + 40
    assert code.compression == pytest.approx(8000 / code.bits)


def test_a_perceptron_codes_what_a_linear_probe_cannot() -> None:
    torch.manual_seed(0)
    x = torch.randn(2000, 2)
    labels = (x.prod(1) > 0).long()
    linear = online_code(x, labels, 2, fractions=(0.125, 0.5))
    curved = online_code(x, labels, 2, fractions=(0.125, 0.5), fit=fit_perceptron)
    assert linear.bits > 1900 and curved.bits < 800
