"""SIGReg and VICReg: losses of known distributions, and equal gradients on one and two ranks."""

from math import pi, sqrt

import numpy as np
import pytest
import torch
from helpers.ranks import run_on_two_ranks
from torch import nn

from worldmodel.model.targets import SIGReg, VICReg, effective_rank, latent_std

D = 8


def make(kind, **options):
    encoder = nn.Identity()
    encoder.shape = (D,)
    return kind(encoder, **options)


def test_sigreg_of_a_gaussian_and_of_a_collapsed_batch():
    torch.manual_seed(0)
    target = make(SIGReg, directions=256)
    valid = torch.ones(1, 512, dtype=torch.bool)
    # E |phi_n - phi|^2 = (1 - phi^2) / n, integrated against exp(-t^2/2)
    expected = sqrt(2 * pi) * (1 - 1 / sqrt(3)) / 512
    seen = [float(target.statistic(torch.randn(1, 512, D), valid)) for _ in range(40)]
    assert np.mean(seen) == pytest.approx(expected, rel=0.15)
    gaussian = torch.randn(1, 512, D)
    # a point: integral of (1 - exp(-t^2/2))^2 exp(-t^2/2)
    collapsed = sqrt(2 * pi) * (1 - 2 / sqrt(2) + 1 / sqrt(3))
    assert float(target.statistic(torch.zeros(1, 512, D), valid)) == pytest.approx(collapsed, rel=0.03)
    one_missing = gaussian * (torch.arange(D) > 0)
    for worse in (one_missing, 3 * gaussian, gaussian + 1, gaussian[..., :1].expand(1, 512, D)):
        assert target.statistic(worse, valid) > 3 * expected
    # rows that aren't valid don't count
    half = torch.cat([gaussian, torch.full_like(gaussian, 50.0)], 1)
    torch.testing.assert_close(target.statistic(half, torch.cat([valid, ~valid], 1)), target.statistic(gaussian, valid))


def test_sigreg_revives_a_collapsed_batch():
    torch.manual_seed(0)
    target = make(SIGReg)
    y = (0.01 * torch.randn(1, 128, D)).requires_grad_()
    optimiser = torch.optim.Adam([y], lr=0.03)
    valid = torch.ones(1, 128, dtype=torch.bool)
    for _ in range(150):
        optimiser.zero_grad()
        target.statistic(y, valid).backward()
        optimiser.step()
        target.update()
    assert 0.7 < latent_std(y, valid) < 1.3 and effective_rank(y, valid) > 7


def test_sigreg_draws_new_directions_and_restores_its_generator():
    target = make(SIGReg, directions=4)
    twin = make(SIGReg, directions=4)
    y, valid = torch.randn(1, 64, D), torch.ones(1, 64, dtype=torch.bool)
    before = target.statistic(y, valid)
    torch.randn(3)  # no matter where the global generator is
    assert target.statistic(y, valid) == before
    target.update()
    assert target.statistic(y, valid) != before
    twin.load_state_dict(target.state_dict())
    assert twin.statistic(y, valid) == target.statistic(y, valid)


def test_vicreg_by_hand():
    target = make(VICReg)
    y = torch.tensor([[[1.0, 0.5], [-1.0, -0.5], [9.0, 9.0]]])
    valid = torch.tensor([[True, True, False]])
    variance, covariance = target.terms(y, valid)
    # variances 2 and .5, covariance 1
    assert variance.item() == pytest.approx((1 - sqrt(0.5 + 1e-4) + sqrt(2 + 1e-4) - 1) / 2, abs=1e-6)
    assert covariance.item() == pytest.approx(2 * 1.0 / 2, abs=1e-3)  # a correlation of 1
    assert target.terms(y / 10, valid)[1].item() == pytest.approx(covariance.item(), abs=0.05)
    losses = make(VICReg, variance=3.0, covariance=0.5).losses(None, None, y, y, torch.tensor([[True, False]]))
    variance, covariance = target.terms(y, valid)
    assert losses["variance"][0, 0].item() == pytest.approx(3 * variance.item())
    assert losses["covariance"][0, 0].item() == pytest.approx(0.5 * covariance.item())
    variance, covariance = target.terms(torch.full((1, 3, 2), 7.0), valid)
    assert variance.item() == pytest.approx(0.99) and covariance.item() == 0.0


def gradients(rows, mask, ranks):
    """Losses of both regularisers and their gradients of a linear encoder's weight, averaged over ranks as in DDP."""
    torch.manual_seed(0)
    net = nn.Linear(rows.shape[-1], D)
    net.shape = (D,)
    z = net(rows)
    found = []
    for kind in (SIGReg, VICReg):
        for loss in kind(net).losses(None, None, z, z, mask).values():
            # what a masked mean over all ranks, averaged over ranks, makes of a repeated scalar
            total = mask.sum().float()
            if ranks > 1:
                torch.distributed.all_reduce(total)
            mean = torch.where(mask, loss, 0.0).sum() * ranks / total
            (grad,) = torch.autograd.grad(mean, net.weight, retain_graph=True)
            value = mean.detach()
            if ranks > 1:
                torch.distributed.all_reduce(grad)
                torch.distributed.all_reduce(value)
            found.append((value / ranks, grad / ranks))
    return found


def work(rank, store, rows, mask, out):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    found = gradients(rows[rank::2], mask[rank::2], 2)
    if rank == 0:
        torch.save(found, out)
    torch.distributed.destroy_process_group()


def test_two_ranks_at_half_the_batch_agree_with_one(tmp_path):
    torch.manual_seed(1)
    rows = 0.5 + torch.randn(4, 7, 5)
    mask = torch.rand(4, 6) > 0.3
    mask[1] = False  # the ranks have different numbers of rows
    out = tmp_path / "gradients.pt"
    run_on_two_ranks(work, tmp_path / "store", rows, mask, out)
    for (one, grad_one), (two, grad_two) in zip(gradients(rows, mask, 1), torch.load(out), strict=True):
        assert grad_one.abs().max() > 1e-5
        torch.testing.assert_close(two, one)
        torch.testing.assert_close(grad_two, grad_one, rtol=1e-4, atol=1e-6)
