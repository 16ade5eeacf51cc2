"""Prediction of the next step: a Gaussian over the latent's change, the reward and the end of the episode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.model.heads.base import Head
from worldmodel.types import Sequences

if TYPE_CHECKING:
    from worldmodel.model.world_model import Outputs, WorldModel

LOGVAR_MIN, LOGVAR_MAX = -7.0, 3.0


def bound_logvar(raw: Tensor) -> Tensor:
    """Bound a log-variance softly to [-7, 3], which preserves its gradient (Chua et al. 2018, app. A.1)."""
    raw = LOGVAR_MAX - F.softplus(LOGVAR_MAX - raw)
    return LOGVAR_MIN + F.softplus(raw - LOGVAR_MIN)


@dataclass
class Prediction:
    """Prediction of a transition; mean and logvar are in normalised units."""

    mean: Tensor  # (*lead, *latent)
    logvar: Tensor  # (*lead, *latent)
    rew: Tensor  # (*lead) symlog of the extrinsic reward
    end: Tensor  # (*lead) logit of termination


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
        self.outcome = nn.Linear(hidden, 2)

    def forward(self, h: Tensor, act: Tensor, y: Tensor) -> Prediction:
        """Predict from the memory h (*lead, D), the embedded action (*lead, D) and y (*lead, *latent), normalised."""
        u = self.trunk(h) + self.act(act)  # (*lead, hidden)
        u = F.gelu(u if self.now is None else u + self.now(y))
        mean, raw = self.delta(u, y)
        rew, end = self.outcome(u).unbind(-1)
        return Prediction(mean, bound_logvar(raw), rew, end)

    def losses(self, model: WorldModel, out: Outputs, seq: Sequences) -> dict[str, Tensor]:
        """Return the losses `delta`, `rew` and `end`; see `Head.losses`.

        `delta` is the Gaussian negative log-likelihood, weighted by the detached standard deviation (Seitzer et al.
        2022, beta 0.5), so that the gradient of the mean does not vanish where the variance is large.
        """
        inverse = torch.exp(-out.pred.logvar)
        nll = 0.5 * (out.error.square() * inverse + out.pred.logvar)
        nll = (nll * torch.exp(0.5 * out.pred.logvar).detach()).flatten(2).mean(-1)
        end = seq.new_steps(seq.end).to(out.pred.end.dtype)
        return {
            "delta": nll,
            "rew": 0.5 * (out.pred.rew - symlog(seq.new_steps(seq.rew_ext))).square(),
            "end": F.binary_cross_entropy_with_logits(out.pred.end, end, reduction="none"),
        }

    def hidden_matrices(self) -> list[Tensor]:
        """Return the weights of the hidden layer."""
        return [layer.weight for layer in (self.trunk, self.now) if layer is not None]


def symlog(x: Tensor) -> Tensor:
    """Return sign(x) log(1 + |x|) (Hafner et al. 2023)."""
    return torch.sign(x) * torch.log1p(x.abs())


def symexp(x: Tensor) -> Tensor:
    """Return sign(x) (exp |x| - 1), the inverse of `symlog`."""
    return torch.sign(x) * torch.expm1(x.abs())
