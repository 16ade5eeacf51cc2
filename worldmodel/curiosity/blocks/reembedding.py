"""Memory of the running episode's observations, which are embedded again with the present weights."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import NamedTuple, cast

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from worldmodel.curiosity.base import AgentSpec, PerEnvState
from worldmodel.curiosity.blocks.features import new_obs
from worldmodel.errors import check_range
from worldmodel.types import Obs, Sequences, map_obs

CHUNK = 2**24  # bytes that are hashed together
Embed = Callable[[Obs], Tensor]  # observations (n, ...) -> embeddings (n, width)


class EpisodeRows(NamedTuple):
    """Embeddings, by the same weights, of the running episodes' last P rows and of the T + 1 rows of a new rollout."""

    x: Tensor  # (N, P + T + 1, width), 0 where there is no row
    episode: Tensor  # (N, P + T + 1), -1 where there is no row
    seen: Tensor  # (N, T, P + T) bool: which rows each of the rows 1..T of the rollout reads


class ObservationMemory(nn.Module):
    """Memory of the last `capacity` observations of each environment, read through an embedding that learns.

    A memory of embeddings would hold those of older weights: after an update, an observation that the episode already
    had looks new. Here a row is compared with what the present weights make of the episode's earlier observations.

    Only the rows of running episodes are embedded, and equal observations once. The memory has `capacity` times the
    bytes of an observation for each environment.
    """

    def __init__(self, spec: AgentSpec, capacity: int):
        super().__init__()
        check_range("curiosity.capacity", capacity, "[1, inf)", whole=True)
        space = spec.obs_space
        spaces = dict(space.spaces) if isinstance(space, gym.spaces.Dict) else {"": space}
        self.capacity = capacity
        self.past = StoredObservations(spec.num_envs, capacity, spaces)
        size = sum(prod(leaf.shape) * leaf.dtype.itemsize for leaf in spaces.values())
        self.register_buffer("weight", torch.randint(-(2**63), 2**63 - 1, (size,)))

    @torch.no_grad()
    def forward(self, roll: Sequences, embed: Embed) -> EpisodeRows:
        """Embed the running episodes with a new rollout, then store the rollout's observations.

        A row reads those of the same episode at most `capacity` rows ago.
        """
        stored, of = self.past.rows(), self.past.episode
        obs, episode = map_obs(lambda new, old: new.to(old.dtype), new_obs(roll), stored), roll.new_rows(roll.episode)
        live = of == episode[:, :1]  # (N, capacity): rows of the episodes that the rollout continues
        longest = int(live.sum(1).max())
        recent = slice(self.capacity - longest, None)
        live = live[:, recent]

        rows = map_obs(lambda old, new: torch.cat([old[:, recent][live], new.flatten(0, 1)]), stored, obs)
        keys = self.keys(map_obs(lambda x: x.flatten(0, 1), obs))  # (N * (T + 1),)
        e = embed_distinct(rows, torch.cat([self.past.keys[:, recent][live], keys]), embed, len(keys))
        x = e.new_zeros(len(episode), longest + episode.shape[1], e.shape[-1])
        count = len(e) - episode.numel()
        x[:, :longest][live] = e[:count]
        x[:, longest:] = e[count:].unflatten(0, episode.shape)
        of = torch.cat([torch.where(live, of[:, recent], -1), episode], 1)

        place = torch.arange(of.shape[1], device=of.device)
        age = place[longest + 1 :, None] - place[:-1]  # (T, P + T)
        seen = (episode[:, 1:, None] == of[:, None, :-1]) & (age >= 1) & (age <= self.capacity)
        self.past.append(obs, keys.view_as(episode), episode)
        return EpisodeRows(x, of, seen)

    def keys(self, obs: Obs) -> Tensor:
        """Return a hash (n,) of the bytes of each observation: sum_i r_i x_i modulo 2^64 with fixed random r.

        Two different ones collide with a probability below 2^-56 (Carter & Wegman 1979).
        """
        leaves = list(obs.values()) if isinstance(obs, dict) else [obs]
        parts = []
        for rows in zip(*(x.split(max(1, CHUNK // len(self.weight))) for x in leaves), strict=True):
            raw = torch.cat([x.contiguous().view(len(x), -1).view(torch.uint8) for x in rows], 1)
            parts.append((raw.long() * self.weight).sum(1))
        return torch.cat(parts)


def embed_distinct(obs: Obs, keys: Tensor, embed: Embed, size: int) -> Tensor:
    """Return embed(obs) (n, width), computed once for rows of equal keys (n,) and for at most `size` rows at a time."""
    distinct, which = keys.unique(return_inverse=True)
    first = which.new_empty(len(distinct)).scatter_(0, which, torch.arange(len(keys), device=keys.device))
    parts = [embed(map_obs(lambda x, rows=rows: x[rows], obs)).float() for rows in first.split(size)]
    return torch.cat(parts)[which]


class StoredObservations(PerEnvState):
    """The last `capacity` observations of each environment, with the dtypes of a rollout, and their hashes."""

    keys: Tensor  # (N, capacity)
    episode: Tensor  # (N, capacity), -1 where no row is stored

    def __init__(self, num_envs: int, capacity: int, spaces: dict[str, gym.Space]):
        super().__init__()
        self.names = {key: f"obs_{key.replace('.', '/')}" for key in spaces}  # buffers (N, capacity, *shape)
        for key, space in spaces.items():
            dtype = torch.from_numpy(np.zeros(0, space.dtype)).dtype
            rows = torch.zeros(num_envs, capacity, *cast(tuple[int, ...], space.shape), dtype=dtype)
            self.register_buffer(self.names[key], rows)
        self.register_buffer("keys", torch.zeros(num_envs, capacity, dtype=torch.long))
        self.register_buffer("episode", torch.full((num_envs, capacity), -1))

    def reset(self, num_envs: int) -> None:
        for name in [*self.names.values(), "keys"]:
            rows = getattr(self, name)
            setattr(self, name, rows.new_zeros(num_envs, *rows.shape[1:]))
        self.episode = self.episode.new_full((num_envs, self.episode.shape[1]), -1)

    def rows(self) -> Obs:
        """Return the observations, leaves (N, capacity, *shape)."""
        found = {key: getattr(self, name) for key, name in self.names.items()}
        return found[""] if list(found) == [""] else found

    def append(self, obs: Obs, keys: Tensor, episode: Tensor) -> None:
        """Store the first T of the T + 1 rows of a rollout, (N, T+1, ...); the last is the first of the next one."""
        leaves = obs if isinstance(obs, dict) else {"": obs}
        for key, name in self.names.items():
            setattr(self, name, _shift(getattr(self, name), leaves[key][:, :-1]))
        self.keys, self.episode = _shift(self.keys, keys[:, :-1]), _shift(self.episode, episode[:, :-1])


def _shift(rows: Tensor, new: Tensor) -> Tensor:
    """Return the last rows of both, as many as `rows` has: rows (N, M, ...), new (N, T, ...)."""
    return torch.cat([rows, new], 1)[:, -rows.shape[1] :].clone()
