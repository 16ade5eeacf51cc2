"""Bad inputs: one line and exit code 2, as in the table of the documentation."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

import pytest
from helpers.tiny import REPO

FOLDER = REPO / "docs" / "results" / "bad_inputs"


@pytest.fixture(scope="module")
def check() -> ModuleType:
    """The script that makes the table."""
    spec = importlib.util.spec_from_file_location("bad_inputs_check", FOLDER / "check.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_each_answer_is_one_line_that_names_the_key(check: ModuleType) -> None:
    found = list(check.answers())
    assert len(found) >= 100
    for answer in found:
        assert answer.code == 2 and re.fullmatch(r"error: [^\n]+\n", answer.text), answer
        keys = [word.lstrip("+").split("=")[0] for word in check.split(answer.arguments)]
        assert not keys or any(re.sub(r"^(env|policy)\.", "", key) in answer.text for key in keys), answer
    assert check.table(found) == (FOLDER / "table.md").read_text(), "run docs/results/bad_inputs/check.py"
