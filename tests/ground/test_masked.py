"""Masked means, by hand."""

import torch

from worldmodel.masked import masked_mean


def test_masked_mean_ignores_what_is_masked_even_nan() -> None:
    x = torch.tensor([[1.0, float("nan")], [3.0, 100.0]])
    mask = torch.tensor([[True, False], [True, False]])
    assert masked_mean(x, mask) == 2.0
    assert masked_mean(x, torch.zeros_like(mask)) == 0.0
