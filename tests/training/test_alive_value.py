"""The value of staying alive beside that of the task, and one warning when it is larger."""

from pathlib import Path

import lightning as L
import pytest
import torch
from helpers.experience import collected
from helpers.tiny import EASY, tiny_config

from worldmodel.learner.running_return import RunningReturn
from worldmodel.policy import PPO
from worldmodel.policy.returns import discounted_returns
from worldmodel.training.build import build_data
from worldmodel.training.callbacks import AliveValue, Metrics

TRAINER = dict(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)


def watched(folder: Path, *rows: tuple[float, float], **objective: object) -> AliveValue:
    """A callback that has seen rows of alive_value and task_value, at a return scale of 0.5."""
    trainer = L.Trainer(**TRAINER)
    callback = AliveValue(Metrics(folder, build_data(tiny_config()).stream), PPO(**objective), RunningReturn())
    for number, (alive, task) in enumerate(rows):
        row = {"alive_value": alive, "task_value": task, "return_scale": 0.5, "env_steps": 2048 * (number + 1)}
        callback.metrics.row = row
        callback.on_train_epoch_end(trainer, None)
    return callback


@pytest.mark.parametrize(
    ("rows", "options", "warns"),
    [
        ([(4.1, 4.0), (4.1, 4.0)], {}, True),
        ([(3.9, 4.0)], {}, False),
        ([(3.9, 4.0), (3.9, 2.0)], {}, False),  # the largest value counts, not the last
        ([(9.0, 0.0)], {}, False),  # no task was seen
        ([(4.1, 4.0)], {"episodic_int": False}, False),
    ],
)
def test_one_warning(capsys: pytest.CaptureFixture, tmp_path: Path, rows: list, options: dict, warns: bool) -> None:
    watched(tmp_path, *rows, **options)
    printed = capsys.readouterr().err
    assert printed.count("warning: staying alive is worth 4.1") == printed.count("\n") == warns


def test_a_resumed_run_keeps_the_largest_return_and_does_not_warn_again(
    capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    first = watched(tmp_path, (4.1, 4.0))
    capsys.readouterr()
    resumed = watched(tmp_path)
    first.task_return.update(torch.ones(1, 2), torch.zeros(1, 3), torch.ones(1, 2, dtype=torch.bool), gamma=0.5)
    resumed.load_state_dict(first.state_dict())
    assert (resumed.largest, resumed.scale) == (4.0, 0.5) and resumed.warned
    assert resumed.task_return.sum.tolist() == [1.5]
    before = watched(tmp_path)
    before.load_state_dict({"largest": 1.0, "warned": True})  # of an earlier version
    assert before.largest == 0.0 and before.warned


def test_the_task_value_follows_the_return_scale(tmp_path: Path) -> None:
    callback = watched(tmp_path, (0.0, 4.0))
    callback.metrics.row |= {"return_scale": 2.0, "task_value": 0.5}  # 4 at a scale of 0.5 is 1 at 2
    callback.on_train_epoch_end(L.Trainer(**TRAINER), None)
    assert callback.largest == 1.0


def test_discounted_returns_by_hand() -> None:
    rew = torch.tensor([[1.0, 2.0, 0.0, 4.0]])
    end = torch.tensor([[False, True, False, False]])
    none = torch.zeros_like(end)
    mask = torch.tensor([[True, True, False, True]])
    got = discounted_returns(rew, end, none, mask, gamma=0.5)
    assert got.tolist() == [[2.0, 2.0, 0.0, 4.0]]


def test_running_returns_by_hand() -> None:
    """Carried from rollout to rollout, ended by masked rows and by new episodes, and rescaled."""
    running, gamma = RunningReturn(), {"gamma": 0.5}
    mask = torch.tensor([[True, True], [True, False]])
    got = running.update(torch.tensor([[1.0, 2.0], [4.0, 9.0]]), torch.tensor([[0, 0, 0], [0, 0, 1]]), mask, **gamma)
    assert got.tolist() == [[1.0, 2.5], [4.0, 0.0]]
    real = torch.ones(2, 2, dtype=torch.bool)
    got = running.update(torch.ones(2, 2), torch.tensor([[0, 0, 0], [1, 1, 1]]), real, ratio=0.5, **gamma)
    assert got.tolist() == [[1.625, 1.8125], [1.0, 1.5]]  # 1 + 2.5 / 4, and the second begins at 0
    got = running.update(torch.ones(2, 2), torch.tensor([[1, 1, 1], [1, 1, 1]]), real, **gamma)
    assert got.tolist() == [[1.0, 1.5], [1.75, 1.875]], "a new environment begins at 0"
    assert running.update(torch.ones(3, 1), torch.zeros(3, 2), real[:1, :1].expand(3, 1), **gamma).eq(1).all()


def test_the_task_value_is_that_of_the_rewards_that_the_policy_learns_from() -> None:
    """Weighted, scaled and clipped; an episode's rewards of earlier rollouts count."""
    options = ["policy.objective.weight_ext=2", "policy.objective.gamma_ext=0.5", "policy.return_scale.clip=3"]
    agent, rollouts = collected(*options, "env.id=MiniGrid-Empty-5x5-v0")
    agent.return_scale.std.fill_(2.0)
    agent.return_scale.update = lambda *args: torch.ones(())
    for roll in rollouts:
        roll.mask[:, :-1], roll.end[:], roll.trunc[:], roll.rew_ext[:], roll.episode[:] = True, False, False, 0.0, 0
    first, second = rollouts
    first.rew_ext[0, -2] = 100.0  # the last step: 50 in scaled units, clipped to 3
    second.rew_ext[0, -9] = 4.0  # the next step: 2
    agent.score(first)
    assert agent.metrics["task_value"] == 2 * 3
    agent.score(second)
    assert agent.metrics["task_value"] == 2 * (2 + 0.5 * 3)


def test_figures_of_a_rollout() -> None:
    agent, rollouts = collected("policy.objective.weight_int=3", "policy.objective.gamma_int=0.9", *EASY)
    agent.score(rollouts[0])
    figures = agent.metrics
    assert figures["alive_value"] == pytest.approx(3 * figures["rew_int"] / 0.1, rel=1e-5)
    assert figures["task_value"] >= 0
