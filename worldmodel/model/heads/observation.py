"""What the next observation will be, symbol by symbol: the distribution that bits are counted in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.table import Table
from worldmodel.model.heads.base import Head
from worldmodel.types import Sequences

if TYPE_CHECKING:
    from worldmodel.model.world_model import Outputs, WorldModel


class ObservationHead(Head):
    """(h_t, embedded a_t) -> a categorical over each symbol of o_{t+1}, for encoders of codes (discrete, grid).

    An observation is (cells, C) codes: a token is one cell of one component, MiniGrid's view has a cell of object,
    colour and state for each position. Cells are independent given (h, a) and, in views of several cells, o_t itself:
    as the delta head reads the present latent, so this one the present codes, which h, much narrower than a view, would
    have to carry through. There the action scales and shifts the hidden layer (FiLM, Perez et al. 2018), and each cell
    has a gate that lets its own present symbol through, since most of a view stays. Within a cell the chain rule holds
    exactly: component c adds to its logits a table row for each component before it, since a wall's colour is no news
    once the wall is known.

    `joint` (a buffer, so a checkpoint tells) is True where the head was trained with the model and shaped its memory,
    False where it was fitted alone on a frozen one.
    """

    def __init__(self, dim: int, encoder: nn.Module, obs_space: gym.Space, hidden: int = 256, joint: bool = True):
        super().__init__()
        self.sizes = sizes_of_codes(encoder, "heads=observation")
        blank = torch.zeros(1, *obs_space.shape) + torch.as_tensor(getattr(obs_space, "start", 0))
        self.cells = encoder.codes(blank).shape[1]
        self.trunk = nn.Linear(dim, hidden)
        self.act = nn.Linear(dim, hidden, bias=False)
        if self.cells > 1:
            self.scale = nn.Linear(dim, hidden, bias=False)
            self.now = Table(list(self.sizes) * self.cells, hidden, "codes of a view")
            self.stay = nn.ModuleList(nn.Embedding(size, size) for size in self.sizes)
            self.gate = nn.Linear(hidden, self.cells)
            for table in self.stay:
                nn.init.zeros_(table.weight)
        self.out = nn.Linear(hidden, self.cells * sum(self.sizes))
        self.chain = nn.ModuleDict()
        for later, size in enumerate(self.sizes):
            for earlier in range(later):
                table = nn.Embedding(self.sizes[earlier], size)
                nn.init.zeros_(table.weight)
                self.chain[f"{earlier}_{later}"] = table
        self.register_buffer("joint", torch.tensor(joint))

    def forward(self, h: Tensor, act: Tensor, now: Tensor | None = None) -> tuple[Tensor, ...]:
        """h and the embedded action (*lead, D) -> for each component its logits (*lead, cells, size), chain left out.

        now (*lead, cells, C) int64: the codes of o_t; not read where an observation is one cell. `log_probs` completes
        the logits.
        """
        if self.cells == 1:
            u = F.gelu(self.trunk(h) + self.act(act))
            return self.out(u).unflatten(-1, (self.cells, -1)).split(self.sizes, -1)
        seen = self.now(now.flatten(-2).flatten(0, -2)).view(*h.shape[:-1], -1)
        u = F.gelu((self.trunk(h) + seen) * (1 + self.scale(act)) + self.act(act))
        gate = self.gate(u)[..., None]
        logits = self.out(u).unflatten(-1, (self.cells, -1)).split(self.sizes, -1)
        return tuple(x + gate * stay(now[..., c]) for c, (x, stay) in enumerate(zip(logits, self.stay, strict=True)))

    def log_probs(self, logits: tuple[Tensor, ...], codes: Tensor, component: int) -> Tensor:
        """Log-probabilities (*lead, cells, size) in nats of one component, given those before it.

        codes (*lead, cells, C) int64, of which only the components before `component` are read.
        """
        x = logits[component]
        for earlier in range(component):
            x = x + self.chain[f"{earlier}_{component}"](codes[..., earlier])
        return x.log_softmax(-1)

    def nll(self, h: Tensor, act: Tensor, codes: Tensor, now: Tensor | None = None) -> Tensor:
        """-log p(o_{t+1} | h_t, a_t) in nats, summed over cells and components: codes of o_{t+1}, and now those of o_t,
        (*lead, cells, C) -> (*lead)."""
        logits = self(h, act, now)
        total = torch.zeros(codes.shape[:-2], device=h.device)
        for c in range(len(self.sizes)):
            chosen = self.log_probs(logits, codes, c).gather(-1, codes[..., c, None])
            total = total - chosen.squeeze(-1).sum(-1)
        return total

    def losses(self, model: WorldModel, out: Outputs, seq: Sequences) -> dict[str, Tensor]:
        """Loss `observation`, in nats a cell; see `Head.losses`."""
        codes = model.symbols(seq.new_rows(seq.obs))
        nll = self.nll(out.h, model.act(seq.new_steps(seq.act)), codes[:, 1:], codes[:, :-1])
        return {"observation": nll / self.cells}

    def sample(self, h: Tensor, act: Tensor, now: Tensor | None = None) -> Tensor:
        """Codes of o_{t+1}, (*lead, cells, C) int64, drawn from the head's distribution."""
        logits = self(h, act, now)
        codes = torch.zeros(*logits[0].shape[:-1], len(self.sizes), dtype=torch.long, device=h.device)
        for c in range(len(self.sizes)):
            logp = self.log_probs(logits, codes, c)
            codes[..., c] = (logp - torch.empty_like(logp).exponential_().log_()).argmax(-1)  # the Gumbel trick
        return codes


def sizes_of_codes(encoder: nn.Module, wanted: str) -> tuple[int, ...]:
    """How many values each component of a code has; ValueError, which names what `wanted` it, for encoders without
    codes."""
    if not hasattr(encoder, "num_values") or not hasattr(encoder, "codes"):
        name = type(encoder).__name__
        raise ValueError(f"{wanted} with encoder={name}: allowed are encoders of codes (discrete, grid)")
    return tuple(encoder.num_values)
