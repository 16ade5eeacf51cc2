"""Memory horizons and variance partitions with known values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worldmodel.analysis.probes.memory import horizon_figure, lagged, memory_horizon, past_and_change, recent


def ar1(rho: float, streams: int = 8, rows: int = 2000) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    z = torch.randn(streams, rows)
    for t in range(1, rows):
        z[:, t] = rho * z[:, t - 1] + (1 - rho**2) ** 0.5 * z[:, t]
    episode = torch.arange(streams)[:, None] * 1000 + torch.arange(rows) // 200
    return z[..., None], episode


def test_lagged_pairs_stay_in_their_episode() -> None:
    t = torch.arange(6.0)[None, :, None]
    episode = torch.tensor([[0, 0, 0, 1, 1, 1]])
    h, z, groups = lagged(t, t, episode, 1)
    assert h.flatten().tolist() == [1, 2, 4, 5] and z.flatten().tolist() == [0, 1, 3, 4]
    h, z, groups = lagged(t, t, episode, 1, least=2)
    assert h.flatten().tolist() == [2, 5] and z.flatten().tolist() == [1, 4] and groups.tolist() == [0, 1]
    with pytest.raises(ValueError, match="lag=6: allowed are 0 to 5"):
        lagged(t, t, episode, 6)


def test_an_ar1_process_forgets_by_the_square_of_rho() -> None:
    z, episode = ar1(0.9)
    found = memory_horizon(z, z, episode, [0, 1, 2, 5, 10])
    for k, score in found.items():
        assert score.score == pytest.approx(0.9 ** (2 * k), abs=0.06) and abs(score.shuffled) < 0.02
    assert len(horizon_figure({"h": found}).axes[0].lines) == 2


def test_a_delay_line_of_k_steps_remembers_k_and_not_k_plus_one() -> None:
    torch.manual_seed(0)
    z = torch.randn(4, 500, 2)
    episode = torch.arange(4)[:, None].expand(4, 500)
    found = memory_horizon(recent(z, [0, 1, 2, 3]), z, episode, [0, 2, 3, 4, 6])
    assert [round(found[k].score, 1) for k in (0, 2, 3)] == [1, 1, 1] and max(found[k].score for k in (4, 6)) < 0.05


def test_recent_by_hand() -> None:
    z = torch.arange(1.0, 5.0)[None, :, None]
    assert recent(z, [0, 2])[0].tolist() == [[1, 0], [2, 0], [3, 1], [4, 2]]


def test_variance_is_parted_as_it_was_put_together() -> None:
    """h = past + change, of variances 3 and 1 in each dimension, independent; then with something in common."""
    torch.manual_seed(0)
    past, change, common = (torch.randn(20_000, 4) for _ in range(3))
    groups = torch.arange(20_000) // 100
    parts = past_and_change(3**0.5 * past + change, past, change, groups)
    assert parts.past == pytest.approx(0.75, abs=0.02) and parts.change == pytest.approx(0.25, abs=0.02)
    assert parts.both > 0.999 and abs(parts.shared) < 0.02 and abs(parts.control) < 0.01
    assert parts.past_only == pytest.approx(0.75, abs=0.02) and parts.change_only == pytest.approx(0.25, abs=0.02)
    told_by_both = torch.cat([past, common], 1), torch.cat([change, common], 1)
    assert past_and_change(common, *told_by_both, groups).shared > 0.999
