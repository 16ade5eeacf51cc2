"""An observation head that is fitted alone, on a frozen memory, and what predictions cost in bits."""

from __future__ import annotations

import math

import gymnasium as gym
import torch
from torch import Tensor

from worldmodel.analysis.probes.activations import Activations
from worldmodel.model.heads.observation import ObservationHead
from worldmodel.model.world_model import WorldModel
from worldmodel.types import map_obs

IDEAL_OBSERVER = ("belief", "predictive", "entropy")
"""Keys of `Rollout.info` in worlds with an ideal observer, see `worldmodel.envs.worlds.known_answer`."""


def fit_observation_head(
    model: WorldModel,
    seen: Activations,
    obs_space: gym.Space,
    *,
    hidden: int = 256,
    steps: int = 2000,
    batch: int = 256,
    lr: float = 2e-3,
    seed: int = 0,
) -> ObservationHead:
    """A head on the frozen memory (`joint` is False): what the memory tells of the next observation, not what it could
    have learnt to tell. The model stays as it is, and so does the caller's random state.

    `seen` are the activations of `model`. Judge the head on other episodes than these.
    """
    h, act, codes, now = transitions(model, seen)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        head = ObservationHead(h.shape[-1], model.encoder, obs_space, hidden, joint=False).to(h.device)
        optimizer = torch.optim.AdamW(head.parameters(), lr, weight_decay=1e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
        for _ in range(steps):
            rows = torch.randint(len(h), (batch,)).to(h.device)
            loss = head.nll(h[rows], act[rows], codes[rows], now[rows]).mean() / head.cells
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return head.requires_grad_(False).eval()


@torch.no_grad()
def observation_bits(model: WorldModel, head: ObservationHead, seen: Activations, block: int = 1024) -> Tensor:
    """-log2 p(o_{t+1} | h_t, a_t) of each transition: (N, R) bits, nan where `seen.mask` is False."""
    parts = zip(*(x.split(block) for x in transitions(model, seen)), strict=True)
    bits = torch.full(seen.mask.shape, torch.nan, device=seen.mask.device)
    bits[seen.mask] = torch.cat([head.nll(*part) for part in parts]) / math.log(2)
    return bits


def ideal_bits(seen: Activations) -> Tensor:
    """What an ideal observer pays for the same: -log2 of the exact chance of each token that came, of worlds which tell
    it (`predictive` in info, see `worldmodel.envs.worlds.known_answer`): (N, R) bits, nan where `seen.mask` is False.

    Its mean falls to the entropy rate, below which no code of long sequences can go.
    """
    before = seen.mask[:, :-1]
    bits = torch.full(seen.mask.shape, torch.nan, device=seen.mask.device)
    act, came = seen.act[:, :-1][before], seen.obs[:, 1:][before].long()
    chance = seen.info["predictive"][:, :-1][before][torch.arange(len(act), device=act.device), act, came]
    bits[:, :-1][before] = -chance.log2().to(bits.dtype)
    return bits


@torch.no_grad()
def transitions(model: WorldModel, seen: Activations) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What an observation head reads and predicts, of all M real transitions: h (M, D), embedded action (M, D), codes
    of the next observation and of the present one (M, cells, C)."""
    after = torch.zeros_like(seen.mask)
    after[:, 1:] = seen.mask[:, :-1]
    codes, now = (model.symbols(map_obs(lambda o, rows=rows: o[rows], seen.obs)) for rows in (after, seen.mask))
    return seen.h[seen.mask], model.act(seen.act[seen.mask]), codes, now
