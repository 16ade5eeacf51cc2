"""Learning to a threshold in the shipped experiments, minutes each: `make test-slow`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from worldmodel.training.config import CONFIG_DIR
from worldmodel.training.learning_curve import read_metrics
from worldmodel.training.run import train


def learn(run_dir: Path, *overrides: str) -> dict[str, np.ndarray]:
    """The metrics of a shipped experiment."""
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        cfg = compose("train", overrides=["video=false", "logger=none", f"run_dir={run_dir}", *overrides])
    assert train(cfg)["status"] == "done"
    return read_metrics(run_dir / "metrics.csv")


@pytest.mark.slow
def test_curiosity_opens_the_door(tmp_path: Path) -> None:
    metrics = learn(tmp_path, "experiment=doorkey", "seed=100", "stop_return=0.9")
    assert metrics["return_ext"][-1] >= 0.9
    assert metrics["env_steps"][-1] <= 200_000
    assert metrics["delta_skill"][-1] > 0.7


@pytest.mark.slow
def test_without_curiosity_the_door_stays_closed(tmp_path: Path) -> None:
    metrics = learn(tmp_path, "experiment=doorkey", "curiosity=none", "seed=100", "total_steps=100_000")
    assert np.nanmax(metrics["return_ext"]) < 0.3
    assert not metrics["rew_int"].any()


@pytest.mark.slow
def test_a_dense_reward_is_learned(tmp_path: Path) -> None:
    metrics = learn(tmp_path, "experiment=cartpole", "seed=100", "total_steps=150_000", "stop_return=300")
    assert metrics["return_ext"][-1] >= 300


@pytest.mark.slow
def test_an_observation_is_remembered(tmp_path: Path) -> None:
    """Chance is a return of about 0.5."""
    world = ["experiment=memory", "env.id=worldmodel/MemoryFacingAnywhere-v0"]
    metrics = learn(tmp_path, *world, "seed=101", "total_steps=600_000", "stop_return=0.9")
    assert metrics["return_ext"][-1] >= 0.9


@pytest.mark.slow
def test_planning_explores_the_chain(tmp_path: Path) -> None:
    """The budget is half of that of the experiment, in which a random policy visits 37 of the 100 states."""
    metrics = learn(tmp_path, "experiment=chain_plan", "seed=100", "total_steps=450")
    assert metrics["coverage"][-1] >= 70
