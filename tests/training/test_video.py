"""The video and the learning curve of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.tiny import tiny_agent

from worldmodel.analysis import video
from worldmodel.analysis.video import film, record_frames
from worldmodel.training.learning_curve import learning_curve, read_metrics

iio = pytest.importorskip("imageio.v3")


@pytest.fixture(scope="module")
def pong():
    """An agent in an environment that only envpool has."""
    agent, stream, cfg = tiny_agent("env=atari", "encoder=conv", "env.num_envs=2")
    stream.close()
    return agent, cfg


def test_video_of_the_engine_that_can_render(pong, tmp_path: Path) -> None:
    assert film(*pong, tmp_path / "video.mp4", episodes=1, max_steps=5) == "video.mp4"
    frames = iio.imread(tmp_path / "video.mp4")
    assert frames.shape == (5, 210, 160, 3) and frames[-1].std() > 1


def test_a_video_ends_with_its_episodes() -> None:
    agent, stream, cfg = tiny_agent("env.id=MiniGrid-Empty-5x5-v0", "+env.max_episode_steps=6")
    stream.close()
    frames = record_frames(agent, cfg, "gymnasium", episodes=2, max_steps=100)
    assert 2 <= len(frames) <= 13 and frames[0].dtype == np.uint8


def test_a_run_does_not_fail_without_a_video(pong, tmp_path: Path, monkeypatch) -> None:
    def refuse(*_, engine: str, **__):
        raise OSError(f"no screen for {engine}\nat all")

    monkeypatch.setattr(video, "build_env", refuse)
    words = film(*pong, tmp_path / "video.mp4")
    assert words == "none: OSError: no screen for gymnasium; OSError: no screen for auto"
    assert not (tmp_path / "video.mp4").exists()


def test_an_environment_that_does_not_render(pong, monkeypatch) -> None:
    make = video.build_env
    monkeypatch.setattr(video, "build_env", lambda *a, **changes: make(*a, **(changes | {"render": False})))
    with pytest.raises(ValueError, match=r"env.engine=auto: does not render"):
        record_frames(*pong, "auto", 1, 5)


@pytest.mark.parametrize("returns", ["nan,nan", "-21,-20", "0.5,0.9", "200,"])
def test_learning_curve(tmp_path: Path, returns: str) -> None:
    first, second = returns.split(",")
    lines = ["env_steps,wall_s,return_ext,rew_int,delta_skill,entropy"]
    lines += [f"{i},{i}.5,{r},0.1,0.2,1.9" for i, r in enumerate((first, second))]
    (tmp_path / "metrics.csv").write_text("\n".join(lines) + "\n")
    learning_curve(tmp_path)
    assert iio.imread(tmp_path / "learning_curve.png").std() > 1
    assert np.isnan(read_metrics(tmp_path / "metrics.csv")["return_ext"][1]) == (second in ("", "nan"))
