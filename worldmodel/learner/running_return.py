"""Running discounted return of the running episodes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class RunningReturn:
    """Discounted sum of an episode's rewards so far, S_t = r_t + gamma S_t-1, carried from rollout to rollout."""

    def __init__(self) -> None:
        self.sum: Tensor | None = None  # (N,) after the last step
        self.episode: Tensor | None = None  # (N,) number of the episode that goes on

    @torch.no_grad()
    def update(
        self, rew: Tensor, episode: Tensor, mask: Tensor, *, gamma: float, ratio: Tensor | float = 1.0
    ) -> Tensor:
        """Return the sums (N, T) of a new rollout; a masked row, which is the last one of an episode, has 0.

        rew: rewards (N, T).
        episode: numbers of the episodes of the rows around the steps (N, T+1). Where the first row is not of the
            episode that went on, as in new environments, the sum begins at 0.
        mask: real steps (N, T) bool.
        ratio: factor of the sums that were carried, if the unit of the rewards has changed.
        """
        total = torch.zeros_like(rew[:, 0])
        if self.sum is not None and self.episode is not None and len(self.sum) == len(rew):
            goes_on = self.episode.to(episode.device) == episode[:, 0]
            total = torch.where(goes_on, self.sum.to(total) * ratio, 0.0)
        sums = []
        for t in range(rew.shape[1]):
            total = torch.where(mask[:, t], rew[:, t] + gamma * total, 0.0)
            sums.append(total)
        self.sum, self.episode = total, episode[:, -1].clone()
        return torch.stack(sums, 1)

    def state_dict(self) -> dict[str, Any]:
        """Return the carried sums and the numbers of their episodes."""
        return {"sum": self.sum, "episode": self.episode}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the sums; see `state_dict`."""
        self.sum, self.episode = state["sum"], state["episode"]
