"""Prediction of the next step: a Gaussian over the latent's change, the reward and the end of the episode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.model.heads.base import Head
from worldmodel.model.heads.reward import RewardHead
from worldmodel.types import Sequences

if TYPE_CHECKING:
    from worldmodel.model.world_model import Outputs, WorldModel

LOGVAR_MIN, LOGVAR_MAX = -7.0, 3.0


def bound_logvar(raw: Tensor) -> Tensor:
    """Bound a log-variance softly to [-7, 3], which preserves its gradient (Chua et al. 2018, app. A.1)."""
    raw = LOGVAR_MAX - F.softplus(LOGVAR_MAX - raw)
    return LOGVAR_MIN + F.softplus(raw - LOGVAR_MIN)


class Forecast(Protocol):
    """Prediction of a transition of any kind of latent; mean and logvar are in normalised units."""

    rew: Tensor  # (*lead) mean of the extrinsic reward
    rew_logp: Tensor  # (*lead, BINS) its log-probabilities, see `RewardHead`
    end: Tensor  # (*lead) logit of termination

    @property
    def mean(self) -> Tensor:
        """Mean of the change (*lead, *latent)."""
        ...

    @property
    def logvar(self) -> Tensor:
        """Log-variance of the change (*lead, *latent)."""
        ...

    def excess(self, error: Tensor, y: Tensor) -> Tensor:
        """Return by how much an outcome surprises above what was expected, 0 on average if calibrated: (*lead).

        Arguments: error (*lead, *latent), observed minus predicted, and the next y (*lead, *latent).
        """
        ...


@dataclass
class Prediction:
    """Gaussian prediction of a transition."""

    mean: Tensor  # (*lead, *latent)
    logvar: Tensor  # (*lead, *latent)
    rew: Tensor  # (*lead) mean of the extrinsic reward
    rew_logp: Tensor  # (*lead, BINS) its log-probabilities, see `RewardHead`
    end: Tensor  # (*lead) logit of termination

    def excess(self, error: Tensor, y: Tensor) -> Tensor:
        """See `Forecast.excess`.

        It is the mean over dimensions of e^2 / sigma^2 - 1. A map's positions are summed instead, in units of the
        sum's standard deviation sqrt(2 positions / channels) where that is above 1, so that an event in one place
        counts the same on a small and on a large map.
        """
        ratio = error.square() * torch.exp(-self.logvar)
        if self.mean.ndim - self.rew.ndim == 1:
            return ratio.mean(-1) - 1.0
        channels, height, width = self.mean.shape[-3:]
        total = (ratio.mean(-3) - 1.0).sum((-1, -2))
        return total / max(1.0, (2 * height * width / channels) ** 0.5)


class VectorDelta(nn.Module):
    """Mean and raw log-variance of the change of a vector latent, each (*lead, D), from u (*lead, width) alone."""

    def __init__(self, width: int, latent: tuple[int, ...]):
        super().__init__()
        self.out = nn.Linear(width, 2 * latent[0])

    def forward(self, u: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.out(u).chunk(2, -1)


class MapDelta(nn.Module):
    """Mean and raw log-variance of the change of a map, each (*lead, C, H, W), from u (*lead, width) and the map y.

    Convolutions over the present map are conditioned on u by FiLM (Perez et al. 2018), so that a local change of the
    map is a local prediction.
    """

    def __init__(self, width: int, latent: tuple[int, ...], channels: int = 32):
        super().__init__()
        self.inp = nn.Conv2d(latent[0], channels, 3, padding=1)
        self.film = nn.Linear(width, 2 * channels)
        self.out = nn.Conv2d(channels, 2 * latent[0], 3, padding=1)

    def forward(self, u: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        lead = u.shape[:-1]
        scale, shift = rearrange(self.film(u.flatten(0, -2)), "n (two c) -> two n c 1 1", two=2)
        hidden = self.inp(rearrange(y, "... c h w -> (...) c h w"))
        hidden = F.gelu(hidden * (1 + scale) + shift)
        return self.out(hidden).unflatten(0, lead).chunk(2, -3)


class DynamicsHead(Head):
    """Head of the next latent, the reward and the end of the episode, with one shared hidden layer."""

    def __init__(self, dim: int, latent: tuple[int, ...], hidden: int = 256):
        super().__init__()
        self.trunk = nn.Linear(dim, hidden)
        self.act = nn.Linear(dim, hidden, bias=False)
        self.now = nn.Linear(latent[0], hidden, bias=False) if len(latent) == 1 else None
        self.delta = (MapDelta if len(latent) == 3 else VectorDelta)(hidden, latent)
        self.reward, self.end = RewardHead(hidden), nn.Linear(hidden, 1)

    def forward(self, h: Tensor, act: Tensor, y: Tensor) -> Forecast:
        """Predict from the memory h (*lead, D), the embedded action (*lead, D) and y (*lead, *latent), normalised."""
        u = self.trunk(h) + self.act(act)  # (*lead, hidden)
        u = F.gelu(u if self.now is None else u + self.now(y))
        mean, raw = self.delta(u, y)
        rew = self.reward(u)
        return Prediction(mean, bound_logvar(raw), self.reward.mean(rew), rew, self.end(u).squeeze(-1))

    def losses(self, model: WorldModel, out: Outputs, seq: Sequences) -> dict[str, Tensor]:
        """Return the losses `delta`, `rew` and `end`; see `Head.losses`.

        `delta` is the Gaussian negative log-likelihood, weighted by the detached standard deviation (Seitzer et al.
        2022, beta 0.5), so that the gradient of the mean does not vanish where the variance is large.
        """
        inverse = torch.exp(-out.pred.logvar)
        nll = 0.5 * (out.error.square() * inverse + out.pred.logvar)
        nll = (nll * torch.exp(0.5 * out.pred.logvar).detach()).flatten(2).mean(-1)
        return {"delta": nll, **self.outcome_losses(out.pred, seq)}

    def outcome_losses(self, pred: Forecast, seq: Sequences) -> dict[str, Tensor]:
        """Return the losses `rew` and `end`, (B, T) each."""
        end = seq.new_steps(seq.end).to(pred.end.dtype)
        return {
            "rew": self.reward.nll(pred.rew_logp, seq.new_steps(seq.rew_ext)),
            "end": F.binary_cross_entropy_with_logits(pred.end, end, reduction="none"),
        }

    def observe(self, y: Tensor, seq: Sequences) -> None:
        """Learn what can occur from new rows with y (B, T+1, *latent), after a rollout was scored."""
        self.reward.observe(seq.new_steps(seq.rew_ext), seq.new_steps(seq.mask))

    def hidden_matrices(self) -> list[Tensor]:
        """Return the weights of the hidden layer."""
        return [layer.weight for layer in (self.trunk, self.now) if layer is not None]
