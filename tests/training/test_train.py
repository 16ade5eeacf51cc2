"""The folder of a run, and the state that a continued run restores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.runs import STEPS, check_whole, last, record, rows, run_main
from helpers.tiny import EASY, TINY
from omegaconf import OmegaConf

from worldmodel.training.callbacks.metrics import COLUMNS
from worldmodel.training.datamodule import Minibatches, SequenceData


def test_run_folder(tiny_run: Path) -> None:
    names = {p.name for p in tiny_run.iterdir()}
    assert names >= {"config.yaml", "run.json", "metrics.csv", "checkpoints", "tensorboard", "learning_curve.png"}
    assert not list(tiny_run.rglob("*.part"))
    assert (tiny_run / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert list((tiny_run / "tensorboard").glob("events.out.tfevents.*"))


EPISODIC = {"return_ext", "success", "length", "coverage_episode", "rooms_episode", "door_share", "door_success"}


def test_run_json(tiny_run: Path) -> None:
    run = record(tiny_run)
    assert run["status"] == "done" and run["seed"] == 0 and run["env_steps"] == 256 and "error" not in run
    assert run["cpu_s"] > 0 and 50 < run["peak_memory_mb"] < 100_000
    assert run["wall_s"] > 0 and run["steps_per_s"] == pytest.approx(256 / run["wall_s"], abs=0.06)
    assert run["packages"]["torch"] == torch.__version__ and run["machine"]["cores"] and "git" in run


def test_metrics(tiny_run: Path) -> None:
    table = rows(tiny_run)
    assert list(table[0])[: len(COLUMNS)] == COLUMNS and "loss_rew" in table[0]
    assert [row["env_steps"] for row in table] == [STEPS * (i + 1) for i in range(8)]
    assert (np.diff([row["wall_s"] for row in table]) > 0).all()
    for key in set(table[0]) - EPISODIC:
        assert all(np.isfinite(row[key]) for row in table), key


def test_config_is_resolved_and_complete(tiny_run: Path) -> None:
    text = (tiny_run / "config.yaml").read_text()
    assert "${" not in text and "???" not in text
    cfg = OmegaConf.create(text)
    assert cfg.run_dir == str(tiny_run) and cfg.logger.save_dir == str(tiny_run) and cfg.data.rollout_length == 8


def test_video(tiny_run: Path) -> None:
    iio = pytest.importorskip("imageio.v3")
    assert record(tiny_run)["video"] == "video.mp4"
    frame = iio.imread(tiny_run / "video.mp4", index=0)
    assert frame.ndim == 3 and frame.std() > 1


def test_checkpoint_is_plain_data(tiny_run: Path) -> None:
    saved = torch.load(tiny_run / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["config"]["data"]["rollout_length"] == 8 and saved["global_step"] == 8 * 4
    assert int(saved["state_dict"]["agent.env_steps"]) == 256


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    run = tmp_path_factory.mktemp("whole")
    overrides = ["data.replay_batch=1", "data.replay_capacity=16", *EASY]
    assert run_main([*TINY, *overrides, "total_steps=384", f"run_dir={run}"]) == 0
    return run


def test_a_continued_run_restores_its_state(cli, tmp_path: Path, whole: Path, monkeypatch) -> None:
    run = tmp_path / "run"
    overrides = ["data.replay_batch=1", "data.replay_capacity=16", *EASY, f"run_dir={run}"]
    assert cli("total_steps=192", *overrides).code == 0
    before, table, halfway = last(run), rows(run), record(run)
    restored = {}
    load = SequenceData.train_dataloader

    def train_dataloader(data: SequenceData) -> Minibatches:
        """Record the restored state; Lightning calls this before the first minibatch."""
        restored["replay"] = data.stream.replay.state_dict()
        restored["state"] = {k: v.clone() for k, v in data.trainer.lightning_module.state_dict().items()}
        restored["steps"] = {int(s["step"]) for s in data.trainer.optimizers[0].state.values()}
        restored["episodes"] = data.stream.collector.episodes.count
        return load(data)

    monkeypatch.setattr(SequenceData, "train_dataloader", train_dataloader)
    ended = cli("total_steps=384", f"checkpoint={run}/checkpoints/last.ckpt", tiny=[])
    assert ended.code == 0, ended.err
    # restored: weights, statistics, moments, replayed sequences
    for key, value in before["state_dict"].items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(restored["state"][key], value), key
    assert before["state_dict"]["agent.reward_normalizer.moments.count"] > 0
    assert torch.equal(restored["replay"]["act"], before["SequenceData"]["replay"]["act"])
    assert restored["steps"] == {4 * len(table)} and restored["episodes"] > 0
    # continued: every update once
    after, run_json = rows(run), record(run)
    np.testing.assert_equal(after[: len(table)], table)  # in which a nan equals itself
    check_whole(run, 384)
    check_whole(whole, 384)
    assert (np.diff([r["wall_s"] for r in after]) > 0).all()
    assert run_json["wall_s"] > halfway["wall_s"]
    assert run_json["steps_before"] == 0, "all steps are of this run"
    same, other = last(run), last(whole)
    for saved in (same, other):
        assert saved["epoch"] == saved["SequenceData"]["rollouts"] == len(after)
    assert same["SequenceData"]["replay"]["act"].shape[0] == 16
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]
