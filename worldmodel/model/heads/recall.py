"""What has been seen so far: a loss that makes the memory keep it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.model.heads.base import Head
from worldmodel.model.heads.observation import sizes_of_codes
from worldmodel.types import Sequences

if TYPE_CHECKING:
    from worldmodel.model.world_model import Outputs, WorldModel


class RecallHead(Head):
    """h_t -> for each symbol, whether it has been in view in an earlier row of the episode, for encoders of codes
    (discrete, grid). A symbol is a value of one component, wherever in the view: of MiniGrid's cells an object, a
    colour or a state.

    Prediction of the next step teaches a memory to keep only what the next step depends on. What decides a reward many
    steps later it must find by the reward alone, one bit an episode; here it is told at each step. Memories that
    reconstruct what went into them (MERLIN, Wayne et al. 2018, arXiv 1803.10760) are taught so with the whole
    observation; which symbols there were is less to carry, and has no place or time. Nothing is predicted of the row
    itself, which needs no memory, and nothing is known of rows that the window doesn't show.
    """

    def __init__(self, dim: int, encoder: nn.Module):
        super().__init__()
        self.sizes = sizes_of_codes(encoder, "heads=recall")
        self.out = nn.Linear(dim, sum(self.sizes))

    def forward(self, h: Tensor) -> Tensor:
        """h (*lead, D) -> logits (*lead, symbols)."""
        return self.out(h)

    def nll(self, h: Tensor, earlier: Tensor) -> Tensor:
        """In nats, summed over symbols: h (*lead, D), earlier (*lead, symbols) bool -> (*lead)."""
        logits = self(h)
        return F.binary_cross_entropy_with_logits(logits, earlier.to(logits.dtype), reduction="none").sum(-1)

    def losses(self, model: WorldModel, out: Outputs, seq: Sequences) -> dict[str, Tensor]:
        """Loss `recall`, in nats; see `Head.losses`."""
        earlier = self.earlier(model.symbols(seq.obs), seq.starts, seq.valid)
        return {"recall": self.nll(out.h, seq.new_steps(earlier))}

    def earlier(self, codes: Tensor, starts: Tensor, valid: Tensor) -> Tensor:
        """Which symbols earlier rows of the same episode show: codes (B, L, cells, C), starts and valid (B, L) ->
        (B, L, symbols) bool."""
        here = torch.cat([in_view(codes[..., c], size) for c, size in enumerate(self.sizes)], -1)
        before = (here & valid[..., None]).int().cumsum(1).roll(1, 1)
        before[:, 0] = 0  # (B, L, symbols) views that have shown it, of whatever episode
        rows = torch.arange(starts.shape[1], device=starts.device)
        first = torch.where(starts, rows, 0).cummax(1).values  # of its episode
        return before > before.gather(1, first[..., None].expand_as(before))


def in_view(codes: Tensor, size: int) -> Tensor:
    """(*lead, cells) int64 -> (*lead, size) bool: which values there are."""
    return torch.zeros(*codes.shape[:-1], size, dtype=torch.bool, device=codes.device).scatter_(-1, codes, True)
