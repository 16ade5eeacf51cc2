"""Running mean and standard deviation, against those of the whole sample."""

import torch

from worldmodel.running_stats import RunningMeanStd


def test_batches_add_up_to_the_whole() -> None:
    x = 3 + 2 * torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    moments = RunningMeanStd((4,))
    for part in x.split(70):
        moments.update(part)
    torch.testing.assert_close(moments.mean, x.mean(0))
    torch.testing.assert_close(moments.std, x.std(0, unbiased=False))
    torch.testing.assert_close(moments(x).std(0, unbiased=False), torch.ones(4))


def test_masked_rows_do_not_count() -> None:
    x = torch.tensor([[1.0], [3.0], [1000.0]])
    moments = RunningMeanStd((1,))
    moments.update(x, torch.tensor([True, True, False]))
    assert moments.mean == 2 and moments.std == 1 and moments.count == 2


def test_about_zero() -> None:
    moments = RunningMeanStd((), centred=False)
    moments.update(torch.tensor([3.0, 4.0]))
    torch.testing.assert_close(moments.std, torch.tensor(12.5).sqrt())
    assert moments.mean == 0


def test_beyond_the_horizon_old_samples_fade() -> None:
    moments = RunningMeanStd((), horizon=100)
    for _ in range(50):
        moments.update(torch.zeros(100))
    for _ in range(10):
        moments.update(torch.ones(100))
    assert moments.mean > 0.99


def test_a_dimension_that_never_changes_does_not_explode() -> None:
    moments = RunningMeanStd((2,))
    moments.update(torch.zeros(10, 2))
    assert torch.isfinite(moments(torch.zeros(2))).all()
