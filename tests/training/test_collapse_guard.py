"""Statistics of the latent space, and one warning when it collapses."""

from math import log, sqrt
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from helpers.tiny import tiny_config
from torch import nn

from worldmodel.model.targets import effective_rank, latent_std
from worldmodel.training.build import build_data
from worldmodel.training.callbacks import CollapseGuard, Metrics


def guarded(folder: Path, *rows: tuple[float, float]) -> CollapseGuard:
    """A guard that has seen rows of latent_std and latent_rank, one per 2048 steps."""
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    guard = CollapseGuard(Metrics(folder, build_data(tiny_config()).stream))
    for number, (std, rank) in enumerate(rows):
        guard.metrics.row = {"latent_std": std, "latent_rank": rank, "env_steps": 2048 * (number + 1)}
        guard.on_train_epoch_end(trainer, None)
    return guard


@pytest.mark.parametrize(
    ("std", "rank", "named"),
    [
        (0.11, 30.0, None),
        (0.5, 4.1, None),
        (0.09, 30.0, "latent_std 0.09, 0.5 at initialisation; prediction"),
        (0.5, 3.9, ": latent_rank 3.9, 40.0 at initialisation; prediction"),
        (0.01, 1.1, "latent_std 0.01, 0.5 at initialisation; latent_rank 1.1, 40.0 at initialisation; prediction"),
    ],
)
def test_one_warning_of_a_collapse(
    capsys: pytest.CaptureFixture, tmp_path: Path, std: float, rank: float, named: str | None
) -> None:
    guarded(tmp_path, (0.5, 40.0), (std, rank), (std, rank))
    printed = capsys.readouterr().err
    assert printed.count("collapsing at env_steps=4096") == printed.count("\n") == (named is not None)
    assert named is None or named in printed


def test_a_space_of_few_dimensions_is_no_collapse(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    guarded(tmp_path, (1.0, 2.0), (1.0, 1.3))
    assert capsys.readouterr().err == ""
    guarded(tmp_path, (1.0, 2.0), (1.0, 1.1))
    assert "latent_rank 1.1" in capsys.readouterr().err


def test_a_resumed_run_compares_with_its_own_start(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    resumed = guarded(tmp_path)
    resumed.load_state_dict(guarded(tmp_path, (1.0, 40.0)).state_dict())
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    resumed.metrics.row = {"latent_std": 0.1, "latent_rank": 40.0, "env_steps": 4096}
    for _ in range(2):
        resumed.on_train_epoch_end(trainer, None)
    assert capsys.readouterr().err.count("collapsing") == 1
    assert resumed.state_dict()["warned"]


def test_latent_std_by_hand():
    y = torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [77.0, 77.0]]])
    mask = torch.tensor([[True, True, False]])
    assert latent_std(y, mask).item() == pytest.approx((sqrt(2) + 0) / 2)
    assert latent_std(torch.full((4, 5, 2), 0.3), torch.ones(4, 5).bool()).item() == pytest.approx(0, abs=1e-6)
    assert latent_std(y, torch.zeros(1, 3).bool()).isnan()


def test_effective_rank_by_hand():
    ones = torch.ones(1, 8, dtype=torch.bool)
    cross = torch.cat([torch.eye(4), -torch.eye(4)])[None]  # isotropic in 4 of 6 dimensions
    cross = nn.functional.pad(cross, (0, 2))
    assert effective_rank(5 + cross, ones).item() == pytest.approx(4, rel=1e-4)
    assert effective_rank(cross.view(1, 8, 2, 3, 1), ones).item() == pytest.approx(4, rel=1e-4)
    line = torch.arange(8.0)[None, :, None] * torch.tensor([1.0, 2.0, 3.0])
    assert effective_rank(line, ones).item() == pytest.approx(1, abs=1e-3)
    uneven = cross * torch.tensor([3.0, 1, 0, 0, 0, 0])  # singular values 3 : 1
    entropy = -(0.75 * log(0.75) + 0.25 * log(0.25))
    assert effective_rank(uneven, ones).item() == pytest.approx(np.exp(entropy), rel=1e-4)
    assert effective_rank(torch.full((1, 8, 3), 0.1), ones).item() == 1.0
    assert effective_rank(cross, torch.zeros_like(ones)).isnan()
    torch.manual_seed(0)
    many = torch.randn(10, 1000, 16)
    assert effective_rank(many, torch.ones(10, 1000).bool()).item() > 15
