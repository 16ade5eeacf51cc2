"""Auxiliary prediction of the symbols seen so far, which trains the memory to retain them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoders import Encoder
from worldmodel.model.heads.base import Head
from worldmodel.model.targets.categorical import code_encoder
from worldmodel.types import Sequences

if TYPE_CHECKING:
    from worldmodel.model.world_model import Outputs, WorldModel


class RecallHead(Head):
    """Head that predicts from h_t, for each symbol, whether an earlier row of the episode has shown it.

    A symbol is a value of one component at any position of the view; in MiniGrid, an object, a colour or a state.
    Encoders of codes (discrete, grid) have symbols.

    Prediction of the next step trains a memory to retain only what the next step depends on. The only signal about an
    observation that decides a reward many steps later is then the reward, one bit per episode, whereas this loss is a
    signal at each step. MERLIN (Wayne et al. 2018, arXiv 1803.10760) reconstructs whole observations; a set of symbols,
    without position and time, needs less capacity. The present row is no target, because predicting it needs no memory,
    and rows before the window do not count as seen.

    Raises ValueError for encoders without codes.
    """

    def __init__(self, dim: int, encoder: Encoder):
        super().__init__()
        self.sizes = tuple(code_encoder(encoder, "heads=recall").num_values)
        self.out = nn.Linear(dim, sum(self.sizes))

    def forward(self, h: Tensor) -> Tensor:
        """Map h (*lead, D) to logits (*lead, symbols)."""
        return self.out(h)

    def nll(self, h: Tensor, earlier: Tensor) -> Tensor:
        """Return -log p in nats, summed over symbols: h (*lead, D), earlier (*lead, symbols) bool -> (*lead)."""
        logits = self(h)
        return F.binary_cross_entropy_with_logits(logits, earlier.to(logits.dtype), reduction="none").sum(-1)

    def losses(self, model: WorldModel, out: Outputs, seq: Sequences) -> dict[str, Tensor]:
        """Return the loss `recall`, in nats; see `Head.losses`."""
        earlier = self.earlier(model.symbols(seq.obs), seq.starts, seq.valid)
        return {"recall": self.nll(out.h, seq.new_steps(earlier))}

    def earlier(self, codes: Tensor, starts: Tensor, valid: Tensor) -> Tensor:
        """Return whether an earlier row of the same episode shows each symbol: (B, L, symbols) bool.

        codes: (B, L, cells, C). starts, valid: (B, L).
        """
        here = torch.cat([in_view(codes[..., c], size) for c, size in enumerate(self.sizes)], -1)
        before = (here & valid[..., None]).int().cumsum(1).roll(1, 1)
        before[:, 0] = 0  # (B, L, symbols) number of earlier rows that show the symbol, in any episode
        rows = torch.arange(starts.shape[1], device=starts.device)
        first = torch.where(starts, rows, 0).cummax(1).values  # first row of the episode
        return before > before.gather(1, first[..., None].expand_as(before))


def in_view(codes: Tensor, size: int) -> Tensor:
    """Return whether each value occurs in any cell: codes (*lead, cells) int64 -> (*lead, size) bool."""
    return torch.zeros(*codes.shape[:-1], size, dtype=torch.bool, device=codes.device).scatter_(-1, codes, True)
