"""Print the medians of before_after.csv and their ratio, with its 95 % bootstrap interval over seeds.

python docs/results/doorkey/before_after.py

A row is one run of `python -m worldmodel.train seed=S threads=1 total_steps=250000 stop_return=0.9 video=false` at a
commit. A run without `steps_to_0_9` did not reach 0.9; it counts as 250,001 steps.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

BUDGET = 250_000

if __name__ == "__main__":
    steps: dict[str, list[int]] = {}
    for row in csv.DictReader(Path(__file__).with_suffix(".csv").open()):
        steps.setdefault(row["commit"], []).append(int(row["steps_to_0_9"] or BUDGET + 1))
    (first, before), *_, (last, after) = steps.items()
    for commit, runs in steps.items():
        print(f"{commit}: median {np.median(runs):,.0f}, {sum(x <= BUDGET for x in runs)} of {len(runs)} seeds")
    draws = np.random.default_rng(0).integers(len(before), size=(2, 20_000, len(before)))
    ratios = np.median(np.array(after)[draws[0]], 1) / np.median(np.array(before)[draws[1]], 1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    print(f"ratio {last} / {first}: {np.median(after) / np.median(before):.2f} [{low:.2f}, {high:.2f}]")
