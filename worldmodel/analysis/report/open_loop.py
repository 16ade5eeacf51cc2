"""How far ahead the world model can see: open-loop predictions held against what came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from worldmodel.model.targets import EMA, Reconstruction, SIGReg, VICReg
from worldmodel.model.world_model import WorldModel
from worldmodel.types import Rollout, Sequences, concatenate


@dataclass
class Window:
    """What the open loop needs of a rollout: its rows without the observations, and their latents."""

    seq: Sequences  # (B, L+1), obs left out
    z: Tensor  # (B, L+1, *encoder.shape)
    y: Tensor  # (B, T+1, *target.shape)

    @classmethod
    def of(cls, model: WorldModel, roll: Rollout, y: Tensor) -> Window:
        """Window of a rollout; y (B, T+1, *target.shape) of its last T+1 rows."""
        with torch.no_grad():
            return cls(replace(roll.as_sequences(), obs={}), model.encoder(roll.obs), y)

    @classmethod
    def join(cls, windows: Sequence[Window]) -> Window:
        """Several windows of the same lengths as one batch."""
        z, y = (torch.cat([getattr(window, k) for window in windows]) for k in ("z", "y"))
        return cls(concatenate([window.seq for window in windows]), z, y)

    @property
    def num_new(self) -> int:
        """T, the number of transitions."""
        return self.seq.num_new


def imagines_latents(model: WorldModel) -> bool:
    """Does y live in the main encoder's own space, so that a predicted change of y is one of z?"""
    target = model.target
    return isinstance(target, Reconstruction | SIGReg | VICReg) or (
        isinstance(target, EMA) and target.normalise == "none"
    )


@torch.no_grad()
def imagine(model: WorldModel, window: Window, start: int, steps: int) -> Tensor:
    """Predict the latents after transition `start` (0..T-1 of the window) from the true actions: (B, steps, *latent).

    The memory has read every row of the window up to the start; from there on nothing observed comes in. Each
    predicted delta is added to y, and the heads read that imagined y. The memory's tokens of imagined steps hold the
    true action and a latent
      - z_start + (y_hat - y_start), where y lives in the encoder's own space (`imagines_latents`; for ema, up to the
        distance between its slow encoder and the main one, which is taken to be that of the start);
      - where y lives in another space (random, inverse and pretrained targets, ema with l2), nothing says what the
        encoder would see: the mean latent of the rows seen so far stands for "unknown", and the memory knows the way
        by its actions only. Its skill is then a lower bound; of zeros, the last latent and this one, this one
        predicts best.
    """
    seq, z, y = window.seq, window.z, window.y
    t = z.shape[1] - y.shape[1] + start  # its row in the window
    seen = seq[:, : t + 1]
    x = model.tokens(z[:, : t + 1], seen.prev_act, seen.starts)
    h, state = model.memory.prefill(x, seen.episode, seen.valid, t + steps)
    h, episode, valid = h[:, -1], seq.episode[:, t], seq.valid[:, t]
    z_now, y_now, goes_on = z[:, t], y[:, start], torch.zeros_like(valid)
    unknown = None if imagines_latents(model) else z[:, : t + 1][seen.valid].mean(0).expand_as(z_now)
    y_hat, path = y_now, []
    for k in range(steps):
        act = seq.act[:, t + k]
        y_hat = y_hat + model.expected_delta(model.predict(h, act, y_hat), y_hat)
        path.append(y_hat)
        if k + 1 < steps:
            z_hat = z_now + (y_hat - y_now) if unknown is None else unknown
            h = model.memory.step(model.tokens(z_hat, act, goes_on), episode, valid, state)
    return torch.stack(path, 1)


class Baseline(Protocol):
    """A prediction that doesn't come from the world model."""

    def path(self, y: Tensor, act: Tensor, episode: Tensor) -> Tensor:
        """Latents y (B, *latent) at the start, act (B, steps, *act_shape), episode (B,) -> (B, steps, *latent)."""
        ...


@dataclass
class Errors:
    """Squared errors of predictions over one horizon, in units of the one-step delta's variance: a number for each
    start. `by` names who predicted: `model`, `still` (that nothing changes), and the baselines."""

    by: dict[str, np.ndarray]
    episode: np.ndarray  # index of the episode

    @classmethod
    def join(cls, parts: Sequence[Errors]) -> Errors:
        """Those of several windows."""
        by = {name: np.concatenate([part.by[name] for part in parts]) for name in parts[0].by}
        return cls(by, np.concatenate([part.episode for part in parts]))


def open_loop(
    model: WorldModel,
    window: Window,
    starts: Sequence[int],
    horizons: Sequence[int],
    episode: Tensor,
    counted: Tensor,
    baselines: Mapping[str, Baseline] = MappingProxyType({}),
) -> dict[int, Errors]:
    """Errors by horizon, from the transitions `starts` of the window.

    A start counts for a horizon where all its steps are in the window and in one episode, and `counted` (B, T) is
    True; `episode` (B, T) names the episodes. Errors are per dimension in units of `model.delta_scale`, averaged over
    dimensions: over horizon 1 they are the `skill_error` and `skill_base` of training.
    """
    real, act = (window.seq.new_steps(x) for x in (window.seq.mask, window.seq.act))  # (B, T)
    scale, found = model.delta_scale.std, {h: [] for h in horizons}
    for start in starts:
        fit = [h for h in horizons if start + h <= window.num_new]
        if not fit:
            continue
        steps, now = max(fit), window.y[:, start]
        paths = {"model": imagine(model, window, start, steps), "still": now[:, None].expand(-1, steps, *now.shape[1:])}
        for name, baseline in baselines.items():
            paths[name] = baseline.path(now, act[:, start : start + steps], episode[:, start])
        for h in fit:
            keep = counted[:, start] & real[:, start : start + h].all(1)
            then = window.y[:, start + h]
            by = {
                name: ((path[:, h - 1] - then) / scale).square().flatten(1).mean(1)[keep].cpu().numpy()
                for name, path in paths.items()
            }
            found[h].append(Errors(by, episode[:, start][keep].cpu().numpy()))
    names = ("model", "still", *baselines)
    none = Errors({name: np.empty(0) for name in names}, np.empty(0, dtype=np.int64))
    return {h: Errors.join(parts or [none]) for h, parts in found.items()}
