"""Open-loop predictions of the world model, and their errors by horizon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from worldmodel.model.targets import EMA, Codes, Reconstruction, SIGReg, VICReg
from worldmodel.model.world_model import WorldModel
from worldmodel.types import Rollout, Sequences, concatenate


@dataclass
class Window:
    """Rows of a rollout without the observations, and their latents."""

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
    """Return whether y is in the space of the main encoder, so that a predicted change of y is a change of z."""
    target = model.target
    return isinstance(target, Reconstruction | SIGReg | VICReg) or (
        isinstance(target, EMA) and target.normalise == "none"
    )


@torch.no_grad()
def imagine(model: WorldModel, window: Window, start: int, steps: int) -> Tensor:
    """Predict the latents after transition `start` (0..T-1 of the window) from the true actions: (B, steps, *latent).

    The memory reads every row of the window up to the start, and no observation after it. Each predicted delta is
    added to y, and the heads read the imagined y. The token of an imagined step holds the true action and a latent:

    - z_start + (y_hat - y_start), where y is in the encoder's space (`imagines_latents`). For ema, the difference
      between its slow encoder and the main one is assumed to stay that of the start.
    - the encoded most probable codes, where y is the observation's codes.
    - the mean latent of the rows seen so far, where y is in another space (random, inverse and pretrained targets, ema
      with l2). The memory then follows the actions alone, and its skill is a lower bound. Of zeros, the last latent
      and this mean, the mean predicted best.
    """
    seq, z, y = window.seq, window.z, window.y
    t = z.shape[1] - y.shape[1] + start  # row of the start in the window
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
            if isinstance(model.target, Codes):
                y_hat = model.target.most_probable(y_hat)
                z_hat = model.encoder(model.observation_of(model.target.components(y_hat)))
            h = model.memory.step(model.tokens(z_hat, act, goes_on), episode, valid, state)
    return torch.stack(path, 1)


class Baseline(Protocol):
    """A prediction without the world model."""

    def path(self, y: Tensor, act: Tensor, episode: Tensor) -> Tensor:
        """Predict latents (B, steps, *latent) from y (B, *latent), act (B, steps, *act_shape) and episode (B,)."""
        ...


@dataclass
class Errors:
    """Squared errors of predictions over one horizon, one for each start, in units of the one-step delta's variance.

    The keys of `by` are the predictors: `model`, `still` (no change), and the baselines.
    """

    by: dict[str, np.ndarray]
    episode: np.ndarray  # index of the episode

    @classmethod
    def join(cls, parts: Sequence[Errors]) -> Errors:
        """Errors of several windows as one."""
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
    """Compute errors by horizon, from the transitions `starts` of the window.

    A start counts for a horizon where all its steps are in the window and in one episode, and `counted` (B, T) is
    True; `episode` (B, T) holds the numbers of the episodes. Errors are per dimension in units of
    `model.delta_scale`, averaged over dimensions: over horizon 1 they are the `skill_error` and `skill_base` of
    training.
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
