"""Dimensions and similarities of clouds of known shape."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from worldmodel.analysis.probes.geometry import (
    cka,
    cka_figure,
    cka_table,
    mle_dimension,
    neighbour_distances,
    participation_ratio,
    rank_me,
    two_nn,
)


def embedded(cloud: Tensor, width: int) -> Tensor:
    """The cloud (M, k), turned into a random k-dimensional subspace of `width` dimensions."""
    frame = torch.linalg.qr(torch.randn(width, cloud.shape[1], dtype=cloud.dtype)).Q
    return cloud @ frame.T


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_ratio_and_rank_of_k_isotropic_dimensions_are_k() -> None:
    x = embedded(torch.randn(20_000, 5), 64)
    assert participation_ratio(x) == pytest.approx(5, abs=0.02)
    assert rank_me(x) == pytest.approx(5, abs=0.05)
    assert participation_ratio(torch.randn(20_000, 1) * torch.ones(1, 7)) == pytest.approx(1)


def test_ratio_by_hand() -> None:
    # eigenvalues in the ratio 3 to 1: 16 / 10
    x = torch.tensor([[3.0, 0], [-3.0, 0], [0, 1], [0, -1]]) * torch.tensor([1.0, 3**0.5])
    assert participation_ratio(x) == pytest.approx(16 / 10)


@pytest.mark.parametrize("estimate", [two_nn, mle_dimension])
def test_dimension_of_a_gaussian_a_plane_and_a_sphere(estimate) -> None:
    assert estimate(embedded(torch.randn(2000, 5), 64)) == pytest.approx(5, abs=0.3)
    assert estimate(embedded(torch.rand(2000, 2), 20)) == pytest.approx(2, abs=0.15)
    sphere = torch.nn.functional.normalize(torch.randn(2000, 3), dim=1)
    assert estimate(embedded(sphere, 10)) == pytest.approx(2, abs=0.15)


def test_dimensions_agree_with_another_library() -> None:
    skdim = pytest.importorskip("skdim")
    x = embedded(torch.randn(1000, 4), 16).double()
    assert two_nn(x) == pytest.approx(skdim.id.TwoNN().fit(x.numpy()).dimension_, rel=0.01)
    theirs = skdim.id.MLE(unbiased=True).fit(x.numpy(), n_neighbors=20).dimension_pw_
    assert mle_dimension(x) == pytest.approx(1 / (1 / theirs).mean(), rel=0.01)


def test_copies_are_counted_once() -> None:
    x = torch.rand(1000, 2)
    assert two_nn(torch.cat([x, x])) == pytest.approx(two_nn(x))
    with pytest.raises(ValueError, match="1 different rows: a dimension needs at least 3"):
        two_nn(torch.zeros(10, 2))
    with pytest.raises(ValueError, match="neighbours=2"):
        mle_dimension(x, 2)


def test_neighbours_by_hand() -> None:
    x = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert neighbour_distances(x, 2, block=3).tolist() == [[1, 3], [1, 2], [2, 3], [4, 6]]


def test_cka_of_copies_is_one_and_of_strangers_zero() -> None:
    x = torch.randn(500, 40)
    turned = x @ torch.linalg.qr(torch.randn(40, 40)).Q
    assert cka(x, turned * 7 + 3) == pytest.approx(1, abs=1e-6)
    strangers = [cka(torch.randn(100, 40), torch.randn(100, 60)) for _ in range(20)]
    assert abs(sum(strangers) / 20) < 0.02  # the plain estimate says .4 here
    half = torch.cat([x, torch.randn(500, 40)], 1)
    assert cka(x, half) == pytest.approx(math.sqrt(0.5), abs=0.02)


def test_cka_is_the_unbiased_hsic_of_the_kernels() -> None:
    """Song et al. 2012, written out on (M, M) kernels."""

    def hsic(k: Tensor, l: Tensor) -> Tensor:  # noqa: E741
        n = len(k)
        k, l = (m - torch.diag(m.diagonal()) for m in (k, l))  # noqa: E741
        inner = (k @ l).trace() + k.sum() * l.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k @ l).sum()
        return inner / (n * (n - 3))

    x, y = torch.randn(30, 4).double() + 1, torch.randn(30, 6).double()
    y[:, :4] += 0.5 * x
    k, l = x @ x.T, y @ y.T  # noqa: E741
    assert cka(x, y) == pytest.approx(float(hsic(k, l) / (hsic(k, k) * hsic(l, l)).sqrt()), abs=1e-9)
    with pytest.raises(ValueError, match="cka of 30 and 29 rows"):
        cka(x, y[1:])


def test_table_of_several_clouds() -> None:
    x = torch.randn(200, 8)
    names, table = cka_table({"a": x, "b": 2 * x, "c": torch.randn(200, 8)})
    assert names == ["a", "b", "c"] and torch.equal(table, table.T)
    assert table[0, 1] > 0.999 and abs(table[0, 2]) < 0.1
    assert len(cka_figure(names, table).axes) == 2
