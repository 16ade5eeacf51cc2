"""Rewards of signals with an episodic memory, and parts of their losses, by hand."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from helpers.worlds import Plain, pay, rollout, signal, vectors, views
from torch import Tensor, nn

from worldmodel.curiosity import DEIR, E3B, ETD, NGU, RIDE, NovelD
from worldmodel.curiosity.deir import others
from worldmodel.curiosity.etd import contrast, quasimetric, sample_later
from worldmodel.masked import masked_mean

PLANE = Box(0, 99, (2,), np.uint8)
CORNERS = vectors((0, 0), (3, 4), (0, 0), (3, 4), (3, 10))


def test_ride_by_hand() -> None:
    ride = signal(RIDE, PLANE, Plain)
    expected = [[5.0, 5 / sqrt(2), 5 / sqrt(2), 6.0]]
    torch.testing.assert_close(pay(ride, rollout(CORNERS)), torch.tensor(expected))


class Novelty(nn.Module):
    """Mean squared errors that are the observation's first number."""

    def update(self, roll) -> None:
        pass

    def forward(self, obs: Tensor) -> Tensor:
        return obs[..., 0].float()


def test_noveld_by_hand() -> None:
    noveld = signal(NovelD, PLANE, Plain, dim=4, alpha=0.5)
    noveld.distillation = Novelty()
    # norms sqrt(4 x): 2, 4, 0, 2, 2
    roll = rollout(vectors((1, 0), (4, 0), (0, 0), (1, 0), (1, 1)))
    expected = [[3.0, 0.0, 0.0, 1.0]]  # 4 - 1; 0 - 2 is below 0; met before; 2 - 1
    torch.testing.assert_close(pay(noveld, roll), torch.tensor(expected))


def test_e3b_by_hand() -> None:
    e3b = signal(E3B, PLANE, Plain, ridge=1.0)
    roll = rollout(vectors((1, 0), (2, 0), (0, 3), (1, 1)))
    # C = diag(2, 1), diag(6, 1), diag(6, 10)
    torch.testing.assert_close(pay(e3b, roll), torch.tensor([[4 / 2, 9.0, 1 / 6 + 1 / 10]]))
    with pytest.raises(ValueError, match=r"curiosity.ridge=0"):
        signal(E3B, PLANE, Plain, ridge=0.0)
    with pytest.raises(ValueError, match=r"curiosity.dim=64: makes 1200 features"):
        signal(E3B, Box(0, 9, (1200,), np.uint8), Plain)


def test_ngu_by_hand() -> None:
    ngu = signal(NGU, PLANE, Plain, neighbours=2, eps=0.1, cluster=0.5, c=0.5, max_similarity=1.4)
    ngu.distillation = Novelty()
    roll = rollout(vectors((0, 0), (3, 4), (0, 4), (0, 0)))
    # squared distances of the two nearest: 25 | 9, 16 | 0, 16
    m = (25 + 9 + 16 + 0 + 16) / 5
    near = [[25 / m], [9 / m, 16 / m], [0.0, 16 / m]]
    roots = [sqrt(sum(0.1 / (max(d - 0.5, 0.0) + 0.1) for d in row)) + 0.5 for row in near]
    assert roots[2] > 1.4 > max(roots[:2])
    # errors 3, 0, 0: mean 1, std sqrt 2
    torch.testing.assert_close(pay(ngu, roll), torch.tensor([[(1 + sqrt(2)) / roots[0], 1 / roots[1], 0.0]]))
    ngu = signal(NGU, PLANE, Plain, limit=2.0)
    ngu.distillation = Novelty()
    torch.testing.assert_close(ngu.alpha(roll), torch.tensor([[2.0, 1.0, 1.0]]))


def test_deir_by_hand() -> None:
    torch.manual_seed(0)
    deir = signal(DEIR, PLANE, Plain)
    x = CORNERS[0].float()
    states = deir.gru.cells[0](x[:, None])[0][:, 0].detach()  # torch's own pass over the whole episode
    tau = torch.cat([torch.zeros(1, 2), states])  # before each row
    expected = [
        min(float((x[i] - x[t + 1]).square().sum() / ((tau[i] - tau[t + 1]).norm() + 1e-6)) for i in range(t + 1))
        for t in range(4)
    ]
    assert expected[1] == expected[2] == 0
    torch.testing.assert_close(pay(deir, rollout(CORNERS)), torch.tensor([expected]))


def test_etd_by_hand() -> None:
    etd = signal(ETD, PLANE, Plain, width=2)
    etd.embed = nn.Identity()
    # max(x1 - y1, 0) + |x2 - y2|, from each earlier one
    roll = rollout(vectors((5, 0), (3, 1), (9, 5), (5, 0)))
    expected = [[2 + 1.0, 4.0, 0.0]]  # from the first; from the second, 0 + 4; from the first, 0
    torch.testing.assert_close(pay(etd, roll), torch.tensor(expected), atol=2e-4, rtol=0)
    for options, words in (({"width": 3}, "width=3"), ({"gamma": 1.0}, "gamma=1.0"), ({"pairs": 1}, "pairs=1")):
        with pytest.raises(ValueError, match=rf"curiosity.{words}"):
            signal(ETD, PLANE, Plain, **options)


def test_quasimetric() -> None:
    torch.manual_seed(0)
    a, b, c = torch.randn(3, 1000, 8)
    assert (quasimetric(a, c) <= quasimetric(a, b) + quasimetric(b, c) + 1e-3).all()
    assert not torch.allclose(quasimetric(a, b), quasimetric(b, a))
    assert (quasimetric(a, a) < 2e-4).all()
    x, y = torch.tensor([5.0, 1.0, 0.0, 0.0]), torch.tensor([3.0, 2.0, 3.0, 4.0])
    torch.testing.assert_close(quasimetric(x, y), torch.tensor(2 + 5.0))


def test_later_rows_are_geometric_and_of_the_same_episode() -> None:
    torch.manual_seed(0)
    episode = torch.tensor([[0, 0, 0, 0, 1, 1, 2]]).expand(20000, -1)
    later = sample_later(episode, 0.5)
    assert (later[:, 2] == 3).all() and (later[:, 3] == 3).all() and (later[:, 4] == 5).all()
    share = (later[:, :1] == torch.arange(7)).float().mean(0)
    torch.testing.assert_close(share, torch.tensor([0, 4 / 7, 2 / 7, 1 / 7, 0, 0, 0]), atol=0.02, rtol=0)


def test_contrast_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0, 9.0], [1.0, 3.0, 9.0], [9.0, 9.0, 9.0]])
    got = contrast(logits, torch.tensor([True, True, False]), 0.1)[:2]
    rows = [log(np.exp(2) + 1), log(np.exp(1) + np.exp(3))]
    columns = [log(np.exp(2) + np.exp(1)), log(1 + np.exp(3))]
    expected = [0.5 * (a + b) - p + 0.1 * a**2 for a, b, p in zip(rows, columns, (2, 3), strict=True)]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float32))


def test_the_contrast_of_a_few_pairs_is_that_of_all() -> None:
    torch.manual_seed(0)
    roll = rollout(views([list(range(41))]), [[0] * 20 + [1] * 21])
    etd = signal(ETD, dim=16, hidden=16, width=8, pairs=8)
    few = torch.stack([etd.losses(roll, None)["etd"] for _ in range(20)])
    mask = roll.new_steps(roll.mask)
    assert ((few != 0).sum((1, 2)) == 8).all() and (few[:, ~mask] == 0).all()
    assert 0.5 * log(8) < masked_mean(few.mean(0), mask) < 2 * log(8)  # the loss of 8 candidates, not 8 / 39 of it
    nothing = rollout(views([[1, 2, 3]]), [[0, 1, 2]])
    loss = etd.losses(nothing, None)["etd"]
    loss.sum().backward()
    assert (loss == 0).all() and all(p.grad.isfinite().all() for p in etd.parameters())


def test_other_observations_differ() -> None:
    torch.manual_seed(0)
    obs = views([[1, 1, 2, 3], [1, 1, 1, 4]])
    mask = torch.tensor([[True, True, True, False], [True, True, True, False]])
    index, differs = others(obs, mask)
    flat = obs.flatten(0, 1)
    assert torch.equal((flat[index] != obs).flatten(2).any(-1), differs) and differs.any()
    assert not torch.isin(index, torch.tensor([3, 7])).any(), "masked rows are not drawn"
    index, differs = others({"a": obs[:, :2], "b": torch.zeros(2, 2)}, mask[:, :2])
    assert not differs.any()
    assert others(obs, torch.zeros_like(mask))[0].shape == mask.shape
