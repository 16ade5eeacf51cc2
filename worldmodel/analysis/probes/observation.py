"""An observation head fitted to a frozen memory, and the code length of observations in bits."""

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
    """Fit an observation head to the frozen memory (`joint` is False).

    The head measures the memory's information about the next observation, not what joint training could achieve. The
    model and the caller's random state do not change. `seen` are the activations of `model`; the caller tests the head
    on other episodes.
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
    """Code length of an ideal observer: -log2 of the exact probability of each token, (N, R) bits.

    It is nan where `seen.mask` is False. The environment reports `predictive` in info (see
    `worldmodel.envs.worlds.known_answer`). The mean falls to the entropy rate, the lower bound of any code of long
    sequences.
    """
    before = seen.mask[:, :-1]
    bits = torch.full(seen.mask.shape, torch.nan, device=seen.mask.device)
    act, came = seen.act[:, :-1][before], seen.obs[:, 1:][before].long()
    chance = seen.info["predictive"][:, :-1][before][torch.arange(len(act), device=act.device), act, came]
    bits[:, :-1][before] = -chance.log2().to(bits.dtype)
    return bits


@torch.no_grad()
def transitions(model: WorldModel, seen: Activations) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs and targets of an observation head, of all M real transitions.

    Returns:
        h (M, D), embedded action (M, D), codes of the next and of the present observation (M, cells, C).
    """
    after = torch.zeros_like(seen.mask)
    after[:, 1:] = seen.mask[:, :-1]
    codes, now = (model.symbols(map_obs(lambda o, rows=rows: o[rows], seen.obs)) for rows in (after, seen.mask))
    return seen.h[seen.mask], model.act(seen.act[seen.mask]), codes, now
