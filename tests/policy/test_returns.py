"""Advantages and returns by hand: bootstrap at a truncation, none at a termination, no reward for a reset."""

import torch

from worldmodel.policy.returns import gae

NO = torch.zeros(1, 4, dtype=torch.bool)
YES = torch.ones(1, 4, dtype=torch.bool)


def flag(*at: int) -> torch.Tensor:
    out = torch.zeros(1, 4, dtype=torch.bool)
    out[0, list(at)] = True
    return out


REW = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
VALUE = torch.tensor([[10.0, 20.0, 30.0, 40.0, 50.0]])


def test_one_step_errors_by_hand() -> None:
    adv, ret = gae(REW, VALUE, NO, NO, YES, gamma=0.5, lam=0.0)
    torch.testing.assert_close(adv, torch.tensor([[1.0, -3.0, -7.0, -11.0]]))
    torch.testing.assert_close(ret, adv + VALUE[:, :-1])


def test_lambda_one_is_the_discounted_return() -> None:
    _, ret = gae(REW, VALUE, NO, NO, YES, gamma=0.5, lam=1.0)
    by_hand = 1 + 0.5 * (2 + 0.5 * (3 + 0.5 * (4 + 0.5 * 50)))
    torch.testing.assert_close(ret[0, 0], torch.tensor(by_hand))


def test_no_return_after_a_termination() -> None:
    _, ret = gae(REW, VALUE, flag(1), NO, ~flag(2), gamma=0.5, lam=1.0)
    torch.testing.assert_close(ret[0, :2], torch.tensor([1 + 0.5 * 2.0, 2.0]))


def test_truncation_bootstraps_from_the_terminal_observation() -> None:
    _, ret = gae(REW, VALUE, NO, flag(1), ~flag(2), gamma=0.5, lam=1.0)
    torch.testing.assert_close(ret[0, 1], torch.tensor(2 + 0.5 * 30.0))


def test_the_reset_row_has_no_advantage_and_leaks_nothing() -> None:
    adv, _ = gae(REW, VALUE, flag(1), NO, ~flag(2), gamma=0.5, lam=0.9)
    assert adv[0, 2] == 0
    other = REW.clone()
    other[0, 2:] = 1000.0
    changed, _ = gae(other, VALUE, flag(1), NO, ~flag(2), gamma=0.5, lam=0.9)
    torch.testing.assert_close(changed[0, :2], adv[0, :2])


def test_non_episodic_stream_flows_past_the_reset() -> None:
    # row 1 ends, row 2 is the terminal observation: row 1's successor is row 3, the new episode's first
    adv, _ = gae(REW, VALUE, flag(1), NO, ~flag(2), gamma=0.5, lam=1.0, episodic=False)
    last = 4 + 0.5 * 50 - 40
    torch.testing.assert_close(adv[0, 3], torch.tensor(last))
    torch.testing.assert_close(adv[0, 1], torch.tensor(2 + 0.5 * 40 - 20 + 0.5 * last))
    assert adv[0, 2] == 0
