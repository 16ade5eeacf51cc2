"""Train the cases of cases.txt, or compare the metrics.csv of two folders of such runs, to the last digit.

python docs/results/restructuring/compare.py train FOLDER      # with the code of the working directory
python docs/results/restructuring/compare.py compare FOLDER FOLDER
"""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

CASES = Path(__file__).with_name("cases.txt")  # name|overrides
COMMON = ("seed=100", "video=false", "threads=1", "logger=none")
CLOCK = {"wall_s", "steps_per_s"}


def train(folder: Path) -> None:
    """Train every case whose run is missing in `folder`."""
    for line in CASES.read_text().splitlines():
        name, overrides = line.split("|")
        if not (folder / name / "DONE").exists():
            words = [*overrides.split(), *COMMON, f"run_dir={folder / name}"]
            subprocess.run([sys.executable, "-m", "worldmodel.train", *words], check=True)


def rows(run: Path) -> list[dict[str, str]]:
    """Return metrics.csv without the columns of the clock."""
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: x for k, x in row.items() if k not in CLOCK} for row in csv.DictReader(file)]


def compare(before: Path, after: Path) -> None:
    """Print the cases that differ; columns that only one of two runs has count as a difference."""
    names = [line.split("|")[0] for line in CASES.read_text().splitlines()]
    different = [name for name in names if rows(before / name) != rows(after / name)]
    print(f"{len(names) - len(different)} of {len(names)} equal", *different)


if __name__ == "__main__":
    {"train": train, "compare": compare}[sys.argv[1]](*map(Path, sys.argv[2:]))
