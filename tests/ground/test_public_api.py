"""The public names: all of them exist, and importing the package imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

import worldmodel


@pytest.mark.parametrize("name", worldmodel.__all__)
def test_public_names_exist(name: str) -> None:
    assert getattr(worldmodel, name) and name in dir(worldmodel)


def test_other_names_do_not_exist() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Agnet'"):
        _ = worldmodel.Agnet


def test_the_package_imports_lazily() -> None:
    code = "import sys, worldmodel; print([m for m in ('torch', 'hydra', 'gymnasium') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
