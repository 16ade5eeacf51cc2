"""Prediction of the next codes: each cell of the view stays or shows another code."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.table import Table
from worldmodel.distributed import max_over_ranks
from worldmodel.model.heads.base import Head
from worldmodel.model.heads.dynamics import DynamicsHead
from worldmodel.model.heads.reward import RewardHead
from worldmodel.model.targets.codes import Codes
from worldmodel.types import Sequences

if TYPE_CHECKING:
    from worldmodel.model.world_model import Outputs, WorldModel

NEVER = -1e9  # logit of what cannot happen
SMALLEST = 1e-4  # variance of a symbol


@dataclass
class CodesPrediction:
    """Prediction of a transition of codes.

    The outcomes of a cell are: it stays, it shows one of the U codes in use, or a code that was never seen.
    """

    rew: Tensor  # (*lead) mean of the extrinsic reward
    rew_logp: Tensor  # (*lead, BINS) its log-probabilities, see `RewardHead`
    end: Tensor  # (*lead) logit of termination
    y: Tensor  # (*lead, *shape) present codes, one-hot
    logp: Tensor  # (*lead, cells, U + 2) log-probabilities of the outcomes
    now: Tensor  # (*lead, cells) present codes
    used: Tensor  # (U,) codes in use, ascending
    unseen: Tensor  # (*lead, cells) number of codes that were never seen, at least 1
    target: Codes
    floor: float  # nats

    @cached_property
    def probabilities(self) -> Tensor:
        """Probabilities of the next symbols (*lead, *shape); a code never seen has uniform components."""
        with torch.no_grad():
            p = self.logp.exp()
            even = torch.cat([p.new_full((size,), 1 / size) for size in self.target.sizes])
            hot = self.target.one_hot(self.target.split(self.now)).to(p.dtype)
            rows = self.target.one_hot(self.target.split(self.used)).to(p.dtype)
            return (p[..., :1] * hot + p[..., 1:-1] @ rows + p[..., -1:] * even).flatten(-2)

    @property
    def mean(self) -> Tensor:
        """Mean change of the one-hot codes (*lead, *shape)."""
        return self.probabilities - self.y

    @property
    def logvar(self) -> Tensor:
        """Log-variance of the change of the one-hot codes (*lead, *shape)."""
        return (self.probabilities * (1 - self.probabilities)).clamp_min(SMALLEST).log()

    def nll(self, y: Tensor) -> Tensor:
        """Return -log p in nats of the next one-hot codes y, by cell: (*lead, *shape) -> (*lead, cells)."""
        code = self.target.codes(self.target.components(y))
        new = len(self.used) + 1
        outcome_of = torch.full((self.target.num_codes,), new, device=y.device)
        outcome_of[self.used] = torch.arange(1, new, device=y.device)
        outcome = outcome_of[code].masked_fill_(code == self.now, 0)
        nll = -self.logp.gather(-1, outcome[..., None]).squeeze(-1)
        return nll + torch.where(outcome == new, self.unseen.log(), 0.0)

    @torch.no_grad()
    def excess(self, error: Tensor, y: Tensor) -> Tensor:
        """Return the surprise of a view above what was expected, in standard deviations: (*lead).

        Surprise is -log p, summed over cells. Its mean and variance under the prediction have a closed form, because
        cells are independent given (h, a) and the present codes. The standard deviation is at least `floor`, so that
        an event counts the same in a small and in a large view.
        """
        p = self.logp.exp()
        surprise = -self.logp
        surprise[..., -1] += self.unseen.log()
        mean = (p * surprise).sum(-1)
        spread = (p * (surprise - mean[..., None]).square()).sum((-1, -2)).sqrt().clamp_min(self.floor)
        return (self.nll(y) - mean).sum(-1) / spread

    def sample(self) -> Tensor:
        """Draw the next codes among those in use: (*lead, cells)."""
        logp = self.logp[..., :-1]
        outcome = (logp - torch.empty_like(logp).exponential_().log_()).argmax(-1)  # the Gumbel trick
        if not len(self.used):
            return self.now
        return torch.where(outcome == 0, self.now, self.used[(outcome - 1).clamp_min(0)])


class CodesHead(DynamicsHead):
    """Head of the next codes, the reward and the end of the episode.

    A small residual convolution over the map of present codes is conditioned on the memory, the action and the whole
    view: by FiLM (Perez et al. 2018) for what is the same in every cell, and by a bias of each cell for what is not,
    such as a turn. So a local change is a local prediction. "Stays" and the present code are one outcome.

    A code is embedded as the sum of its components' rows, which serve the input and the logits of all cells. Only codes
    in use have logits, those that a rollout has shown on any rank; all others share one outcome, uniformly, so that
    -log p is exact for every observation.

    floor: smallest spread of surprise, in nats; see `CodesPrediction.excess`.
    """

    starts: Tensor  # (C,) int64: first row of each component in the table of symbols
    used: Tensor  # (V,) bool: codes that were seen

    def __init__(self, dim: int, target: Codes, hidden: int = 256, channels: int = 16, floor: float = 1.0):
        Head.__init__(self)
        self.target_codes = (target,)  # not a part of this head
        self.floor = floor
        cells = target.cells[0] * target.cells[1]
        self.trunk = nn.Linear(dim, hidden)
        self.act = nn.Linear(dim, hidden, bias=False)
        self.scale = nn.Linear(dim, hidden, bias=False)
        self.view = Table(list(target.sizes) * cells, hidden, "codes of a view")
        self.reward, self.end = RewardHead(hidden), nn.Linear(hidden, 1)
        self.symbols = nn.Embedding(sum(target.sizes), channels)
        self.prior = nn.Embedding(sum(target.sizes), 1)
        self.film = nn.Linear(hidden, 2 * channels)
        self.place = nn.Linear(hidden, cells * channels)
        self.inp = nn.Conv2d(channels, channels, 3, padding=1)
        self.mix = nn.Conv2d(channels, channels, 3, padding=1)
        self.out = nn.Linear(channels, channels + 2)  # query of the codes, logits of staying and of a new code
        nn.init.normal_(self.symbols.weight, std=channels**-0.5)
        nn.init.zeros_(self.prior.weight)
        starts = torch.tensor((0, *target.sizes[:-1])).cumsum(0)
        self.register_buffer("starts", starts, persistent=False)
        self.register_buffer("used", torch.zeros(target.num_codes, dtype=torch.bool))

    def forward(self, h: Tensor, act: Tensor, y: Tensor) -> CodesPrediction:
        """Predict from the memory h (*lead, D), the embedded action (*lead, D) and y (*lead, *shape)."""
        (target,), lead = self.target_codes, h.shape[:-1]
        now = target.components(y)  # (*lead, cells, C)
        seen = self.view(now.flatten(-2).flatten(0, -2)).view(*lead, -1)
        u = F.gelu((self.trunk(h) + seen) * (1 + self.scale(act)) + self.act(act))  # (*lead, hidden)
        rew = self.reward(u)
        used = self.used.nonzero().squeeze(-1)
        code = target.codes(now)
        logits = self._logits(u.flatten(0, -2), code.flatten(0, -2), used).unflatten(0, lead)
        own = used == code[..., None]  # (*lead, cells, U)
        unseen = (target.num_codes - len(used)) - (~own.any(-1)).to(logits.dtype)
        barred = torch.cat([torch.zeros_like(own[..., :1]), own, (unseen < 1)[..., None]], -1)
        logp = logits.masked_fill(barred, NEVER).log_softmax(-1)
        return CodesPrediction(
            self.reward.mean(rew),
            rew,
            self.end(u).squeeze(-1),
            y,
            logp,
            code,
            used,
            unseen.clamp_min(1.0),
            target,
            self.floor,
        )

    def _logits(self, u: Tensor, code: Tensor, used: Tensor) -> Tensor:
        """Return logits (N, cells, U + 2) from u (N, hidden), the present codes (N, cells) and those in use (U,)."""
        (target,) = self.target_codes
        parts = target.split(torch.arange(target.num_codes, device=u.device)) + self.starts  # (V, C)
        table = self.symbols(parts).sum(1)  # (V, channels)
        x = F.embedding(code, table).transpose(1, 2).unflatten(-1, target.cells)
        scale, shift = self.film(u)[..., None, None].chunk(2, 1)
        x = F.gelu(self.inp(x) * (1 + scale) + shift + self.place(u).view_as(x))
        x = x + F.gelu(self.mix(x))
        query, stay, new = self.out(x.flatten(2).transpose(1, 2)).split([x.shape[1], 1, 1], -1)
        codes = query @ table[used].t() + self.prior(parts[used]).sum(1).squeeze(-1)
        return torch.cat([stay, codes, new], -1)

    def losses(self, model: WorldModel, out: Outputs, seq: Sequences) -> dict[str, Tensor]:
        """Return the losses `delta` (-log p in nats per cell), `rew` and `end`; see `Head.losses`."""
        assert isinstance(out.pred, CodesPrediction)
        return {"delta": out.pred.nll(out.y[:, 1:]).mean(-1), **self.outcome_losses(out.pred, seq)}

    @torch.no_grad()
    def observe(self, y: Tensor, seq: Sequences) -> None:
        """Add the codes of valid rows to those in use, on all ranks; see `DynamicsHead.observe`."""
        super().observe(y, seq)
        (target,) = self.target_codes
        codes = target.codes(target.components(y[seq.new_rows(seq.valid)]))
        new = torch.zeros_like(self.used, dtype=torch.uint8)
        new[codes.flatten()] = 1
        self.used |= max_over_ranks(new).bool()

    def hidden_matrices(self) -> list[Tensor]:
        """Return the weights of the hidden layers."""
        return [self.trunk.weight, self.place.weight]
