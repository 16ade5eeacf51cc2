"""Coverage of the places of a world, and its growth over time."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import torch

from worldmodel.types import Rollout

Place = tuple[int, ...]


class Coverage:
    """Number of different values of `info[key]`, (N, k) int; places with a negative first number are not counted.

    The columns, with `name` as prefix:

    coverage           different places visited since training began, over all environments of this rank
    coverage_auc       mean of the coverage over the steps so far: the area under the curve divided by its length. The
                       steps of a rollout count in order, the environments side by side within each
    coverage_episode   different places in an episode, a mean over the last `episode_window` that finished (nan before);
                       the relevant one if every episode has a new map, as most rooms do
    """

    def __init__(self, episode_window: int = 200, *, key: str = "place", name: str = "coverage"):
        self.key, self.name = key, name
        self.first: dict[Place, int] = {}  # the step of the first visit
        self.steps = 0
        self.running: dict[int, set[Place]] = {}  # places of each copy's episode so far
        self.finished: deque[int] = deque(maxlen=episode_window)

    def add(self, roll: Rollout) -> None:
        if not roll.info or self.key not in roll.info:
            return
        place = roll.info[self.key].cpu().numpy()  # (N, T+1, k)
        over = roll.new_steps(roll.end | roll.trunc).cpu().numpy()
        copies, rows, _ = place.shape
        ordered = place.transpose(1, 0, 2).reshape(rows * copies, -1)  # by time, then by copy
        different, index = np.unique(ordered, axis=0, return_index=True)
        for i in np.argsort(index):
            if different[i][0] >= 0:
                # row t is the state after t steps; the first row precedes them
                self.first.setdefault(tuple(different[i].tolist()), self.steps + int(index[i]) // copies * copies)
        self.steps += (rows - 1) * copies
        for copy in range(copies):
            self._add_episodes(copy, place[copy], np.flatnonzero(over[copy]))

    def _add_episodes(self, copy: int, place: np.ndarray, ends: np.ndarray) -> None:
        """Add the rows (T+1, k) of one copy; `ends` are the transitions that lead to the last row of an episode."""
        start = int(copy in self.running)  # the first row was counted as the last row of the previous rollout
        for end in ends:
            self._visit(copy, place[start : end + 2])
            self.finished.append(len(self.running.pop(copy)))
            start = end + 2
        self._visit(copy, place[start:])

    def _visit(self, copy: int, place: np.ndarray) -> None:
        new = {tuple(row) for row in np.unique(place, axis=0).tolist() if row[0] >= 0}
        self.running[copy] = self.running.get(copy, set()) | new

    def summary(self) -> dict[str, float]:
        if not self.steps:
            return {}
        area = sum(self.steps - step for step in self.first.values())
        return {
            self.name: float(len(self.first)),
            f"{self.name}_auc": area / self.steps,
            f"{self.name}_episode": float(np.mean(self.finished)) if self.finished else float("nan"),
        }

    def state_dict(self) -> dict[str, Any]:
        running = [(copy, *place) for copy, places in self.running.items() for place in sorted(places)]
        return {
            "places": torch.tensor(list(self.first), dtype=torch.long),
            "first": torch.tensor(list(self.first.values()), dtype=torch.long),
            "steps": self.steps,
            "copies": len(self.running),
            "running": torch.tensor(running, dtype=torch.long),
            "finished": list(self.finished),
        }

    def load_state_dict(self, state: dict[str, Any], running: bool) -> None:
        self.first = {tuple(p): s for p, s in zip(state["places"].tolist(), state["first"].tolist(), strict=True)}
        self.steps = state["steps"]
        self.finished.extend(state["finished"])
        self.running = {copy: set() for copy in range(state["copies"])} if running else {}
        for copy, *place in state["running"].tolist() if running else []:
            self.running[copy].add(tuple(place))
