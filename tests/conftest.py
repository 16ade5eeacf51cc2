"""Fixtures shared by several test files: the command line in this process, and a tiny trained run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from helpers.runs import run_main
from helpers.tiny import EASY, REPO, TINY, fitting, tiny_agent

from worldmodel import train
from worldmodel.analysis.report.context import EvaluationContext

os.environ["PYTHONPATH"] = str(REPO)  # processes that tests start import this checkout, from any folder


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Ended]:
    """A function that runs a command in this process, in a separate folder.

    The command is `worldmodel.train` with tiny sizes, or another `main` with the given arguments alone. The learning
    curve, a third of a short run's time, is drawn only with `plot=True`.
    """
    monkeypatch.chdir(tmp_path)

    def run(
        *arguments: str, tiny: list[str] = TINY, main: Callable[[], None] = train.main, plot: bool = False
    ) -> Ended:
        capfd.readouterr()
        words = sorted(fitting(tiny, arguments), key=lambda word: not word.startswith("-"))  # Hydra's options go first
        with monkeypatch.context() as patch:
            if not plot:
                patch.setattr("worldmodel.training.run.learning_curve", lambda run_dir: None)
            return Ended(run_main(words, main), *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of 8 updates with 4 environments, 8 new steps and 4 of context; read-only."""
    folder = tmp_path_factory.mktemp("tiny") / "run"
    assert run_main([*TINY, "total_steps=256", f"run_dir={folder}", "logger=tensorboard", "video=true"]) == 0
    return folder


@pytest.fixture(scope="module")
def context() -> EvaluationContext:
    """A short evaluation of an untrained agent in a small room."""
    torch.manual_seed(1)
    agent, stream, cfg = tiny_agent(*EASY, "data.success=0.0")
    for _ in range(2):
        agent.score(stream.collector.collect())
    stream.close()
    return EvaluationContext(Path("nowhere.ckpt"), agent, cfg, episodes=12, seed=0, num_envs=4)
