"""Range and choice checks: which values pass, and the line for those that do not."""

from __future__ import annotations

import math
import pickle

import pytest

from worldmodel.errors import ConfigError, SettingError, check_choice, check_range


@pytest.mark.parametrize("value", [0, 0.0, 0.5, 0.999])
def test_values_inside_the_interval_pass(value: float) -> None:
    check_range("data.x", value, "[0, 1)")


@pytest.mark.parametrize("value", [1, 1.0, -1e-9, math.nan, math.inf, None, True, "0.5", [0.5]])
def test_values_outside_the_interval_are_refused(value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        check_range("data.x", value, "[0, 1)")
    assert str(caught.value) == f"data.x={value}: allowed are numbers from 0 to below 1"


@pytest.mark.parametrize(
    ("interval", "options", "words"),
    [
        ("[1, inf)", {"whole": True}, "whole numbers from 1"),
        ("[1, inf)", {"whole": True, "null": True}, "null and whole numbers from 1"),
        ("(0, inf)", {}, "numbers above 0"),
        ("(-3, 100]", {}, "numbers above -3 to 100"),
        ("[0, 1]", {}, "numbers from 0 to 1"),
    ],
)
def test_the_line_states_the_interval(interval: str, options: dict, words: str) -> None:
    with pytest.raises(SettingError, match=rf"^a.b=-4: allowed are {words}$"):
        check_range("a.b", -4, interval, **options)


def test_whole_numbers_and_null() -> None:
    check_range("a", None, "[1, inf)", null=True)
    check_range("a", 3, "[1, 3]", whole=True)
    for value in (2.0, 4, False):
        with pytest.raises(SettingError):
            check_range("a", value, "[1, 3]", whole=True)


def test_choices() -> None:
    check_choice("a", "x", (None, "x"))
    with pytest.raises(SettingError, match=r"^a=y: allowed are null, x$"):
        check_choice("a", "y", (None, "x"))


def test_an_error_survives_pickling_between_processes() -> None:
    again = pickle.loads(pickle.dumps(SettingError("a", 1, "are 2 and 3")))
    assert (str(again), again.key, again.value) == ("a=1: allowed are 2 and 3", "a", 1)
