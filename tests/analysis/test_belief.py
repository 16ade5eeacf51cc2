"""Decoding of beliefs that are in the features, and of others that are not."""

from __future__ import annotations

import pytest
import torch
from helpers.hidden_markov import mess3, sample

from worldmodel.analysis.probes.belief import fit_belief, simplex, simplex_figure


def test_belief_is_found_where_it_is_and_not_among_shuffled_ones() -> None:
    _, belief, _ = map(torch.from_numpy, sample(mess3(), streams=20, rows=300))
    belief, groups = belief.flatten(0, 1), torch.arange(20).repeat_interleave(300)
    h = torch.cat([belief @ torch.randn(3, 10, dtype=torch.double) + 1, torch.randn(len(belief), 4)], 1)
    fit = fit_belief(h, belief, groups)
    assert fit.r2 > 0.9999 and abs(fit.r2_shuffled) < 0.02 and fit.rmse < 1e-2
    torch.testing.assert_close(fit.map(h).sum(1), torch.ones(len(h)).double())
    noise = fit_belief(torch.randn(len(h), 14), belief, groups)
    assert abs(noise.r2) < 0.02
    assert len(simplex_figure(fit).axes) == 2


def test_corners_of_the_simplex() -> None:
    points = simplex(torch.eye(3))
    torch.testing.assert_close(torch.pdist(points), torch.ones(3))
    torch.testing.assert_close(simplex(torch.full((1, 3), 1 / 3)), points.mean(0, keepdim=True))
    with pytest.raises(ValueError, match="belief over 2 states"):
        simplex(torch.ones(1, 2))
