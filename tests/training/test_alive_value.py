"""The value of staying alive beside that of the task, and one warning when it is larger."""

from pathlib import Path

import lightning as L
import pytest
import torch
from helpers.experience import collected
from helpers.tiny import EASY, tiny_config

from worldmodel.policy import PPO
from worldmodel.policy.returns import discounted_returns
from worldmodel.training.build import build_data
from worldmodel.training.callbacks import AliveValue, Metrics

TRAINER = dict(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)


def watched(folder: Path, *rows: tuple[float, float], **objective: object) -> AliveValue:
    """A callback that has seen rows of alive_value and max_return_ext, at a return scale of 0.5."""
    trainer = L.Trainer(**TRAINER)
    callback = AliveValue(Metrics(folder, build_data(tiny_config()).stream), PPO(weight_ext=2.0, **objective))
    for number, (alive, largest) in enumerate(rows):
        row = {"alive_value": alive, "max_return_ext": largest, "return_scale": 0.5, "env_steps": 2048 * (number + 1)}
        callback.metrics.row = row
        callback.on_train_epoch_end(trainer, None)
    return callback


@pytest.mark.parametrize(
    ("rows", "options", "warns"),
    [
        ([(4.1, 1.0), (4.1, 1.0)], {}, True),  # the task is worth 2 * 1 / 0.5 = 4
        ([(3.9, 1.0)], {}, False),
        ([(3.9, 1.0), (3.9, 0.5)], {}, False),  # the largest return counts, not the last
        ([(9.0, 0.0)], {}, False),  # no task was seen
        ([(4.1, 1.0)], {"episodic_int": False}, False),
    ],
)
def test_one_warning(capsys: pytest.CaptureFixture, tmp_path: Path, rows: list, options: dict, warns: bool) -> None:
    watched(tmp_path, *rows, **options)
    printed = capsys.readouterr().err
    assert printed.count("warning: staying alive is worth 4.1") == printed.count("\n") == warns


def test_a_resumed_run_keeps_the_largest_return_and_does_not_warn_again(
    capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    first = watched(tmp_path, (4.1, 1.0))
    capsys.readouterr()
    resumed = watched(tmp_path)
    resumed.load_state_dict(first.state_dict())
    assert resumed.largest == 1.0 and resumed.warned


def test_discounted_returns_by_hand() -> None:
    rew = torch.tensor([[1.0, 2.0, 0.0, 4.0]])
    end = torch.tensor([[False, True, False, False]])
    none = torch.zeros_like(end)
    mask = torch.tensor([[True, True, False, True]])
    got = discounted_returns(rew, end, none, mask, gamma=0.5)
    assert got.tolist() == [[2.0, 2.0, 0.0, 4.0]]


def test_figures_of_a_rollout() -> None:
    agent, rollouts = collected("policy.objective.weight_int=3", "policy.objective.gamma_int=0.9", *EASY)
    agent.score(rollouts[0])
    figures = agent.metrics
    assert figures["alive_value"] == pytest.approx(3 * figures["rew_int"] / 0.1, rel=1e-5)
    assert figures["max_return_ext"] >= 0
