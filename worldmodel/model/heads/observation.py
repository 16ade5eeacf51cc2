"""Categorical prediction of the next observation, symbol by symbol."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gymnasium as gym
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from encoders import Encoder
from encoders.table import Table
from worldmodel.model.heads.base import Head
from worldmodel.model.targets.categorical import code_encoder
from worldmodel.types import Sequences

if TYPE_CHECKING:
    from worldmodel.model.world_model import Outputs, WorldModel


class ObservationHead(Head):
    """Head with a categorical distribution over each symbol of o_{t+1}, given h_t and a_t.

    An observation is (cells, C) codes of a `CodeEncoder`; a cell of MiniGrid's view has an object, a colour and a
    state. Cells are independent given (h, a) and, in views of several cells, the present codes o_t, which are an input
    because h is much narrower than a view. In such views the action scales and shifts the hidden layer (FiLM, Perez et
    al. 2018), and each cell has a gate that adds a row for its present symbol to the logits, since most of a view does
    not change. Within a cell the distribution is exact by the chain rule: the logits of component c contain a table row
    for each component before it, because the colour of a cell depends on its object.

    `joint` is a buffer, and therefore in checkpoints. It is True if the head was trained together with the model and
    its memory, False if it was fitted to a frozen model.

    Raises ValueError for encoders without codes.
    """

    joint: Tensor  # scalar, bool

    def __init__(self, dim: int, encoder: Encoder, obs_space: gym.Space, hidden: int = 256, joint: bool = True):
        super().__init__()
        coder = code_encoder(encoder, "heads=observation")
        self.sizes = tuple(coder.num_values)
        blank = torch.zeros(1, *(obs_space.shape or ())) + torch.as_tensor(getattr(obs_space, "start", 0))
        self.cells = coder.codes(blank).shape[1]
        self.trunk = nn.Linear(dim, hidden)
        self.act = nn.Linear(dim, hidden, bias=False)
        if self.cells > 1:
            self.scale = nn.Linear(dim, hidden, bias=False)
            self.now = Table(list(self.sizes) * self.cells, hidden, "codes of a view")
            tables = [nn.Embedding(size, size) for size in self.sizes]
            self.stay = nn.ModuleList(tables)
            self.gate = nn.Linear(hidden, self.cells)
            for table in tables:
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
        """Return the logits (*lead, cells, size) of each component, without the terms of the components before it.

        `log_probs` adds these terms. h, act: memory and embedded action (*lead, D). now: codes of o_t (*lead, cells, C)
        int64, needed if an observation has several cells.
        """
        if self.cells == 1:
            u = F.gelu(self.trunk(h) + self.act(act))
            return rearrange(self.out(u), "... size -> ... 1 size").split(self.sizes, -1)
        assert now is not None
        seen = self.now(now.flatten(-2).flatten(0, -2)).view(*h.shape[:-1], -1)
        u = F.gelu((self.trunk(h) + seen) * (1 + self.scale(act)) + self.act(act))
        gate = self.gate(u)[..., None]
        logits = rearrange(self.out(u), "... (cells size) -> ... cells size", cells=self.cells).split(self.sizes, -1)
        return tuple(x + gate * stay(now[..., c]) for c, (x, stay) in enumerate(zip(logits, self.stay, strict=True)))

    def log_probs(self, logits: tuple[Tensor, ...], codes: Tensor, component: int) -> Tensor:
        """Return the log-probabilities (*lead, cells, size) of one component in nats, given those before it.

        codes (*lead, cells, C) int64, of which only the components before `component` are read.
        """
        x = logits[component]
        for earlier in range(component):
            x = x + self.chain[f"{earlier}_{component}"](codes[..., earlier])
        return x.log_softmax(-1)

    def nll(self, h: Tensor, act: Tensor, codes: Tensor, now: Tensor | None = None) -> Tensor:
        """Return -log p(o_{t+1} | h_t, a_t) in nats, summed over cells and components: (*lead).

        codes: of o_{t+1}, (*lead, cells, C). now: codes of o_t, (*lead, cells, C).
        """
        logits = self(h, act, now)
        total = torch.zeros(codes.shape[:-2], device=h.device)
        for c in range(len(self.sizes)):
            chosen = self.log_probs(logits, codes, c).gather(-1, codes[..., c, None])
            total = total - chosen.squeeze(-1).sum(-1)
        return total

    def losses(self, model: WorldModel, out: Outputs, seq: Sequences) -> dict[str, Tensor]:
        """Return the loss `observation`, in nats per cell; see `Head.losses`."""
        codes = model.symbols(seq.new_rows(seq.obs))
        nll = self.nll(out.h, model.act(seq.new_steps(seq.act)), codes[:, 1:], codes[:, :-1])
        return {"observation": nll / self.cells}

    def sample(self, h: Tensor, act: Tensor, now: Tensor | None = None) -> Tensor:
        """Sample codes of o_{t+1}, (*lead, cells, C) int64."""
        logits = self(h, act, now)
        codes = torch.zeros(*logits[0].shape[:-1], len(self.sizes), dtype=torch.long, device=h.device)
        for c in range(len(self.sizes)):
            logp = self.log_probs(logits, codes, c)
            codes[..., c] = (logp - torch.empty_like(logp).exponential_().log_()).argmax(-1)  # the Gumbel trick
        return codes
