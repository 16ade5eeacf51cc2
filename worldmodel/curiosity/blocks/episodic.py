"""Memory of the running episode, per environment, kept between rollouts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldmodel.curiosity.base import AgentSpec, PerEnvState
from worldmodel.curiosity.blocks.hashing import StateHash
from worldmodel.errors import check_range
from worldmodel.types import Sequences


class EpisodicMemory(PerEnvState):
    """The last `capacity` rows of each environment; a row reads those of the same episode.

    Older rows are discarded, so the memory is bounded: an episode longer than `capacity` has a sliding window. Stored
    rows do not change; for features that learn see `ObservationMemory`.
    """

    rows: Tensor  # (N, capacity, *shape)
    episode: Tensor  # (N, capacity), -1 where no row is stored

    def __init__(self, num_envs: int, shape: tuple[int, ...], capacity: int, dtype: torch.dtype = torch.float32):
        super().__init__()
        check_range("curiosity.capacity", capacity, "[1, inf)", whole=True)
        self.capacity = capacity
        self.register_buffer("rows", torch.zeros(num_envs, capacity, *shape, dtype=dtype))
        self.register_buffer("episode", torch.full((num_envs, capacity), -1))

    def reset(self, num_envs: int) -> None:
        self.rows = self.rows.new_zeros(num_envs, *self.rows.shape[1:])
        self.episode = self.episode.new_full((num_envs, self.capacity), -1)

    @torch.no_grad()
    def forward(self, x: Tensor, episode: Tensor) -> tuple[Tensor, Tensor]:
        """Read the memory, then write to it, for x (N, T+1, *shape) and episode (N, T+1) of a new rollout.

        Returns P rows up to the last but one (N, P, *shape), T <= P <= M + T, and for each of the rows 1..T which of
        them it reads: (N, T, P) bool. A row reads those of the same episode at most M = `capacity` rows ago. Leading
        rows that no row reads are left out, to save computation.
        """
        past = torch.cat([self.rows, x[:, :-1].to(self.rows.dtype)], 1)
        of = torch.cat([self.episode, episode[:, :-1]], 1)  # (N, M + T)
        place = torch.arange(past.shape[1], device=x.device)
        age = torch.arange(self.capacity + 1, past.shape[1] + 1, device=x.device)[:, None] - place  # (T, M + T)
        seen = (episode[:, 1:, None] == of[:, None]) & (age >= 1) & (age <= self.capacity)
        self.rows, self.episode = past[:, -self.capacity :].clone(), of[:, -self.capacity :].clone()
        unused = int(seen[..., : self.capacity].any(1).any(0).long().cumsum(0).eq(0).sum())
        return past[:, unused:], seen[..., unused:]


def distances(x: Tensor, past: Tensor) -> Tensor:
    """Return the Euclidean distances (N, T, P) of x (N, T, D) to past (N, P, D).

    They are exactly 0 between equal vectors; the faster computation by a matrix product is too coarse for that.
    """
    return torch.cdist(x.float(), past, compute_mode="donot_use_mm_for_euclid_dist")


class EpisodicVisits(nn.Module):
    """N_ep(o_t+1): number of visits of an observation in the episode so far, by its hash.

    The count includes the current visit and the first observation of the episode.
    """

    def __init__(self, spec: AgentSpec, *, bits: int, capacity: int):
        super().__init__()
        self.hash = StateHash(spec, bits=bits)
        self.memory = EpisodicMemory(spec.num_envs, (), capacity, torch.long)

    def forward(self, roll: Sequences) -> Tensor:
        """Return the counts (N, T) of a new rollout, whole numbers from 1."""
        return self.count(self.hash(roll), roll)

    def count(self, keys: Tensor, roll: Sequences) -> Tensor:
        """Return the counts (N, T) for the hashes (N, T+1) of the rollout's rows."""
        past, seen = self.memory(keys, roll.new_rows(roll.episode))
        return 1 + (seen & (keys[:, 1:, None] == past[:, None])).sum(-1)
