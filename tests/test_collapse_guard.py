"""The guard speaks once, and only when the space dies."""

from types import SimpleNamespace

import pytest

from worldmodel.callbacks import CollapseGuard

TRAINER = SimpleNamespace(is_global_zero=True)


@pytest.mark.parametrize(("std", "rank", "speaks"), [(0.5, 30.0, 0), (0.001, 30.0, 1), (0.5, 1.1, 1), (0.5, 1.9, 0)])
def test_warning_in_words(capsys: pytest.CaptureFixture, std: float, rank: float, speaks: int) -> None:
    metrics = SimpleNamespace(row={"latent_std": 1.0, "latent_rank": 40.0, "env_steps": 0})
    guard = CollapseGuard(metrics)
    guard.on_train_epoch_end(TRAINER, None)
    metrics.row = {"latent_std": std, "latent_rank": rank, "env_steps": 2048}
    guard.on_train_epoch_end(TRAINER, None)
    guard.on_train_epoch_end(TRAINER, None)
    assert capsys.readouterr().err.count("collapsing at env_steps=2048") == speaks
