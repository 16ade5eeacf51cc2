"""The pages and notebooks name no key or option of an earlier version, but for the table of renamed keys."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.tiny import REPO

from worldmodel.training.renamed_keys import KEYS, new_name

OVERRIDE = re.compile(r"(?<![\w./])~?[a-z_]+(?:\.[a-z_]+)*=[\w.]*")
KEY = re.compile(r"(?<![\w./])[a-z_]+(?:\.[a-z_]+)+")
PAGES = [path for path in (REPO / "docs").rglob("*.md") if not {"results", "reference"} & set(path.parts)]
PAGES += [REPO / "README.md", REPO / "CONTRIBUTING.md", *(REPO / "notebooks").glob("*.ipynb")]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(REPO)))
def test_a_page_uses_present_keys(page: Path) -> None:
    text = re.sub(r"\n## Renamed keys\n.*", "", page.read_text(), flags=re.S)  # the last section of its page
    old = {override for override in OVERRIDE.findall(text) if new_name(override)}
    old |= {key for key in KEY.findall(text) for name in KEYS if "." in name and f"{key}.".startswith(f"{name}.")}
    assert not old
