"""Baselines of a world model's predictions: the mean change, and a linear model of the change."""

from __future__ import annotations

from collections.abc import Sequence

import gymnasium as gym
import torch
from torch import Tensor
from torch.nn import functional as F

from worldmodel.analysis.report.recorded import RecordedRollouts
from worldmodel.model.world_model import WorldModel

WIDEST = 4096  # numbers of a latent; the normal matrix of a wider one needs too much memory


class Affine:
    """Affine prediction of the delta, applied recursively.

    delta = W [1] (`linear=False`: the mean delta) or W [1, y, a] (ridge regression). It is fitted on the evaluated
    transitions with two folds: episodes of even number are predicted from those of odd number, and vice versa. y and
    delta are standardised, a discrete action is one-hot; each weight except the constant's has penalty 1.
    """

    def __init__(self, model: WorldModel, act_space: gym.Space, linear: bool):
        self.model, self.act_space, self.linear = model, act_space, linear
        self.weights: Tensor | None = None  # (2, features, D); NaN where there was nothing to fit on

    def features(self, y: Tensor, act: Tensor) -> Tensor:
        """Regressors (B, features) float64 of y (B, *latent) and act (B, *act_shape)."""
        one = torch.ones(len(y), 1, dtype=torch.float64, device=y.device)
        if not self.linear:
            return one
        return torch.cat([one, self.model.latent_scale(y).flatten(1), one_hot(self.act_space, act)], 1)

    def fit(self, recorded: Sequence[RecordedRollouts]) -> Affine:
        """Fit on all counted transitions, rollout by rollout, since the features of all do not fit in memory."""
        gram, moment = [0.0, 0.0], [0.0, 0.0]
        for part in recorded:
            window, keep = part.window, part.real
            y, act = window.y[:, :-1][keep], window.seq.new_steps(window.seq.act)[keep]
            delta = ((window.y[:, 1:] - window.y[:, :-1]) / self.model.delta_scale.std)[keep].flatten(1).double()
            x, odd = self.features(y, act), part.number[keep] % 2 == 1
            for predicted, rows in enumerate((odd, ~odd)):
                gram[predicted] = gram[predicted] + x[rows].T @ x[rows]
                moment[predicted] = moment[predicted] + x[rows].T @ delta[rows]
        self.weights = torch.stack([_ridge(a, b) for a, b in zip(gram, moment, strict=True)])
        return self

    def path(self, y: Tensor, act: Tensor, episode: Tensor) -> Tensor:
        """See `Baseline.path`."""
        odd, path = (episode % 2 == 1)[:, None], []
        for k in range(act.shape[1]):
            x = self.features(y, act[:, k])
            even_delta, odd_delta = x @ self.weights[0], x @ self.weights[1]
            delta = torch.where(odd, odd_delta, even_delta).to(y.dtype)
            y = y + delta.view_as(y) * self.model.delta_scale.std
            path.append(y)
        return torch.stack(path, 1)


def one_hot(space: gym.Space, act: Tensor) -> Tensor:
    """Encode actions (B, *act_shape) as (B, F) float64: discrete ones as one-hot, those of a box unchanged."""
    if isinstance(space, gym.spaces.Box):
        return act.flatten(1).double()
    sizes = [int(space.n)] if isinstance(space, gym.spaces.Discrete) else [int(n) for n in space.nvec.flatten()]
    columns = act.reshape(len(act), len(sizes)).unbind(1)
    return torch.cat([F.one_hot(a, n) for a, n in zip(columns, sizes, strict=True)], 1).double()


def _ridge(gram: Tensor, moment: Tensor) -> Tensor:
    """Ridge regression from the normal equations, (X'X + P)^-1 X'Y, where P is I without the constant's 1.

    NaN where X has no rows.
    """
    if not gram[0, 0]:
        return torch.full_like(moment, torch.nan)
    penalty = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    penalty[0, 0] = 0.0
    return torch.linalg.solve(gram + penalty, moment)
