"""Achievements unlocked in the episodes, in environments that have them."""

from __future__ import annotations

from typing import Any

import torch

from worldmodel.types import Rollout

PREFIX = "achievement_"


class Achievements:
    """Statistics of the entries `achievement_<name>` of info, (N,) bool each, at the end of every episode of training.

    achievement_<name>    share of the episodes that unlocked it
    achievements          mean number of different ones per episode
    achievement_score     exp(mean log(1 + 100 share)) - 1, in percent: a geometric mean that gives rare ones more
                          weight (Hafner 2021, arXiv 2109.06780)

    All are nan before the first episode has ended.
    """

    def __init__(self) -> None:
        self.unlocked: dict[str, int] = {}
        self.episodes = 0

    def add(self, roll: Rollout) -> None:
        unlocked = {k: v for k, v in (roll.info or {}).items() if k.startswith(PREFIX)}
        if not unlocked:
            return
        over = roll.new_steps(roll.end | roll.trunc)
        self.episodes += int(over.sum())
        for key, flags in unlocked.items():
            self.unlocked[key] = self.unlocked.get(key, 0) + int(flags[:, 1:][over].sum())

    def summary(self) -> dict[str, float]:
        if not self.unlocked:
            return {}
        shares = torch.tensor(list(self.unlocked.values())) / (self.episodes or float("nan"))
        score = torch.expm1(torch.log1p(100 * shares).mean())
        named = dict(zip(self.unlocked, shares.tolist(), strict=True))
        return {"achievements": float(shares.sum()), "achievement_score": float(score)} | named

    def state_dict(self) -> dict[str, Any]:
        return {"unlocked": dict(self.unlocked), "episodes": self.episodes}

    def load_state_dict(self, state: dict[str, Any], running: bool) -> None:
        self.unlocked, self.episodes = dict(state["unlocked"]), state["episodes"]
