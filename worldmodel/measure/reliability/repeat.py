"""Repeated runs of one seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worldmodel.measure.reliability.runs import fingerprint, small_run


def repeated(folder: Path, scale: float) -> dict[str, Any]:
    """Ten runs of one seed, and one of another, which must differ."""
    runs = max(round(10 * scale), 2)
    found = {fingerprint(small_run(folder / f"same_{i}")) for i in range(runs)}
    other = fingerprint(small_run(folder / "other", 8, "seed=1"))
    return {"runs": runs, "distinct_hashes": len(found), "another_seed_differs": other not in found}
