"""Atari's conventions in reports: whole games and human-normalised scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from worldmodel import evaluate
from worldmodel.analysis.report.atari import SCORES, human_normalised, whole_games
from worldmodel.training.compose import compose_config


def test_human_normalised_by_hand() -> None:
    assert human_normalised("Pong-v5", 14.6) == 1 and human_normalised("ALE/Pong-v5", -20.7) == 0
    assert human_normalised("BreakoutNoFrameskip-v4", 16.1) == pytest.approx(0.5)
    assert human_normalised("CartPole-v1", 500.0) is None
    assert len(SCORES) == 26 and all(low < high for low, high in SCORES.values())


def test_evaluation_plays_whole_games_with_raw_rewards() -> None:
    env = compose_config(["experiment=atari100k"]).env
    assert env.kwargs == {"episodic_life": True, "reward_clip": True} and env.sticky == 0
    assert whole_games(env) == {"kwargs": {"episodic_life": False, "reward_clip": False}}
    assert whole_games(compose_config(["experiment=atari"]).env) == {}


def test_the_report_has_the_score(cli: Callable, tmp_path: Path) -> None:
    pytest.importorskip("envpool")
    small = ["env.num_envs=2", "data.rollout_length=8", "data.context=4", "data.epochs=1", "data.minibatches=2"]
    small += ["encoder.dim=16", "memory.dim=16", "target.dim=8", "logger=none", "video=false", "total_steps=16"]
    ended = cli("experiment=atari100k", *small, "data.model_batch=1", f"run_dir={tmp_path}", tiny=[])
    assert ended.code == 0, ended.err
    words = (f"checkpoint={tmp_path}/checkpoints/last.ckpt", "parts=[returns]", "episodes=2", "num_envs=2")
    ended = cli(*words, "max_episode_steps=40", "sticky=0", tiny=[], main=evaluate.main)
    assert ended.code == 0, ended.err
    random = json.loads((tmp_path / "report.json").read_text())["returns"]["random"]
    assert random["human_normalised"] == pytest.approx((random["return_mean"] + 20.7) / 35.3, abs=1e-4)
