"""Errors, rewards and the slow copy of BYOL-Explore, by hand."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import pytest
import torch
from helpers.by_hand import ROLL, SPEC, Same, Stub, rollout
from torch import nn

from worldmodel.curiosity import BYOLExplore
from worldmodel.curiosity.blocks.features import Flat


class Line(Same):
    """An encoder with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))


@pytest.mark.parametrize(
    ("horizon", "num_new", "mask", "count"),
    [
        (3, 3, [1, 1, 1, 1, 1], [3, 3, 3]),  # predictions from the context reach the first new rows
        (1, 3, [1, 1, 1, 1, 1], [1, 1, 1]),
        (3, 5, [1, 1, 1, 1, 1], [1, 2, 3, 3, 3]),  # nothing comes before the window
        (9, 3, [1, 1, 1, 1, 1], [3, 4, 5]),
        (3, 3, [1, 1, 1, 0, 1], [3, 0, 1]),  # no prediction across a reset
    ],
)
def test_errors_of_all_predictions_of_a_row_are_summed(horizon: int, num_new: int, mask: list, count: list) -> None:
    signal = BYOLExplore(SPEC, dim=2, hidden=4, horizon=horizon)
    signal.predictor = Stub(lambda x: x.new_tensor([3.0, 0.0]).expand(*x.shape[:-1], 2))
    signal.slow = Stub(lambda obs: torch.tensor([0.0, 5.0]).expand_as(obs))  # at right angles: each error is 2
    roll = rollout(torch.randn(6, 2).tolist(), [0, 1, 2, 3, 0], [bool(x) for x in mask], num_new)
    torch.testing.assert_close(signal.errors(roll), 2.0 * torch.tensor([count]))
    torch.testing.assert_close(signal.losses(roll, None)["byol_explore"], 2.0 * torch.tensor([count]) / horizon)


def test_errors_one_prediction_at_a_time() -> None:
    torch.manual_seed(0)
    signal = BYOLExplore(SPEC, dim=2, hidden=4, horizon=3)
    mask = [True, True, False, True, True, True, True]
    roll = rollout(torch.randn(8, 2).tolist(), [0, 3, 1, 2, 0, 1, 3], mask, 5)
    obs, act, code = roll.obs[0], roll.act[0], signal.code(roll.act)[0]
    (gru,) = signal.belief.cells
    expected = [0.0] * 7
    for start in range(7):
        first = 3 if start >= 3 else 0  # of its episode
        hidden = None
        for t in range(first, start + 1):  # the belief
            before = code[t - 1] if t > first else torch.zeros(4)
            hidden = gru(signal.token(torch.cat([obs[t], before]))[None], hidden)[1]
        state = hidden
        for k in range(3):
            if start + k > 6 or not all(mask[start : start + k + 1]):
                break
            state = signal.ahead(code[start + k][None], state)
            one, other = signal.predictor(state)[0], obs[start + k + 1]
            expected[start + k] += float((one / one.norm() - other / other.norm()).square().sum().detach())
    assert int(act[-1]) == 0 and expected[2] == 0
    torch.testing.assert_close(signal.errors(roll), torch.tensor([expected[2:]]), rtol=1e-4, atol=1e-5)


def test_the_reward_is_the_error_above_the_average() -> None:
    signal = BYOLExplore(SPEC, dim=2, hidden=4)
    errors = iter([torch.tensor([[1.0, 3.0]]), torch.tensor([[5.0, 5.0]])])
    signal.errors = lambda roll: next(errors)
    torch.testing.assert_close(signal.reward(ROLL, None), torch.tensor([[0.0, 1.0]]))  # std 1, mean 2
    old, new = 0.7 / 1.7, 1 / 1.7  # weights of the two rollouts
    std = sqrt(5 * old + 25 * new - (2 * old + 5 * new) ** 2)
    level = 2 * old + 5 / std * new
    torch.testing.assert_close(signal.reward(ROLL, None), torch.full((1, 2), 5 / std - level), rtol=1e-4, atol=1e-4)


def test_the_slow_copy_follows() -> None:
    signal = BYOLExplore(replace(SPEC, make_encoder=lambda dim: Line()), dim=2, hidden=4, decay=0.75)
    signal.encoder.encoder.weight.data.fill_(4.0)
    signal.update()
    assert float(signal.slow.net.encoder.weight.detach()) == 0.75 * 0.0 + 0.25 * 4.0
    assert isinstance(signal.slow.net, Flat) and not signal.slow.net.training
