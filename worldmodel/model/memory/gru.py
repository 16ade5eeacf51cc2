"""Recurrent memory: stacked GRUs that start from zero at each episode."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from worldmodel.model.memory.base import Memory, State, check_capacity, check_positive


@dataclass
class Hidden(State):
    """State of the GRUs while acting."""

    hidden: Tensor = field(kw_only=True)  # (depth, N, D) after the last valid row
    episode: Tensor = field(kw_only=True)  # (N,) of the last valid row
    begun: Tensor = field(kw_only=True)  # (N,) bool: there was a valid row


class GRU(Memory[Hidden]):
    """`depth` stacked GRUs (Cho et al. 2014), with a zero hidden state at the start of the window and of each episode.

    A row that is not valid is skipped and leaves the hidden state unchanged.
    """

    def __init__(self, dim: int = 128, depth: int = 2):
        super().__init__()
        check_positive(dim=dim, depth=depth)
        self.dim, self.depth = dim, depth
        self.cells = nn.ModuleList(nn.GRU(dim, dim) for _ in range(depth))

    def layers(self, x: Tensor, episode: Tensor, valid: Tensor) -> list[Tensor]:
        """See `Memory.layers`."""
        batch, rows, _ = x.shape
        order, sizes = pack(episode, valid)
        last = last_valid(valid)
        shows = (last >= 0) & (episode.gather(1, last.clamp(min=0)) == episode)  # (B, L): a valid row so far
        place = order.new_zeros(batch * rows).scatter(0, order, torch.arange(len(order), device=x.device))
        source = place.view(batch, rows).gather(1, last.clamp(min=0))  # (B, L): packed index of each row's hidden state
        y, out = x.flatten(0, 1)[order], []
        for cell in self.cells:
            y = cell(PackedSequence(y, sizes))[0].data  # (rows packed, D)
            out.append(torch.where(shows[..., None], y[source], 0.0))
        return out

    @torch.no_grad()
    def prefill(self, x: Tensor, episode: Tensor, valid: Tensor, capacity: int) -> tuple[Tensor, Hidden]:
        """See `Memory.prefill`."""
        n, rows, dim = x.shape
        check_capacity(rows, capacity)
        hidden = x.new_zeros(self.depth, n, dim)
        state = Hidden(capacity, rows, hidden=hidden, episode=episode.new_zeros(n), begun=valid.new_zeros(n))
        if not rows:
            return x, state
        out = self.layers(x, episode, valid)
        last = last_valid(valid)[:, -1]
        row = last.clamp(min=0)[:, None]
        state.hidden = torch.stack([h.take_along_dim(row[..., None], 1)[:, 0] for h in out])
        state.episode, state.begun = episode.gather(1, row)[:, 0], last >= 0
        return out[-1], state

    @torch.no_grad()
    def step(self, x: Tensor, episode: Tensor, valid: Tensor, state: Hidden) -> Tensor:
        """See `Memory.step`."""
        state.advance()
        same = (state.begun & (state.episode == episode))[:, None]
        for i, cell in enumerate(self.cells):
            before = torch.where(same, state.hidden[i], 0.0)
            after = cell(x[None], before[None])[0][0]
            state.hidden[i] = torch.where(valid[:, None], after, state.hidden[i])
            x = torch.where(valid[:, None], after, before)
        state.episode = torch.where(valid, episode, state.episode)
        state.begun = state.begun | valid
        return x


def last_valid(valid: Tensor) -> Tensor:
    """Return the last valid row at or before each row, -1 if there is none: valid (B, L) -> (B, L)."""
    return torch.where(valid, torch.arange(valid.shape[1], device=valid.device), -1).cummax(1).values


def pack(episode: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Pack the episodes of all sequences side by side, so that no time step is spent on padding or on a reset.

    episode (B, L), valid (B, L) -> the flat index of each row, ordered by its place in its episode and then by
    decreasing length, and the number of episodes that reach each place (on the CPU), which are the arguments of
    `PackedSequence`. Row 0 is always packed, as its own episode if it is not valid, so that an empty batch is not a
    special case.
    """
    rows = episode.shape[1]
    valid, episode = valid.flatten(), episode.flatten()
    used = valid.clone()
    used[0] = True
    row = used.nonzero()[:, 0]  # (n,)
    begins = torch.ones_like(used[row])
    begins[1:] = (episode[row].diff() != 0) | ((row // rows).diff() != 0) | ~valid[row[:-1]]
    segment = begins.cumsum(0) - 1  # (n,)
    lengths = segment.bincount()
    place = torch.arange(len(row), device=row.device) - begins.nonzero()[segment, 0]  # (n,)
    rank = lengths.argsort(descending=True, stable=True).argsort()
    return row[(place * len(lengths) + rank[segment]).argsort()], place.bincount().cpu()
