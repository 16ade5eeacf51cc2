"""Discriminative-model-based episodic intrinsic reward."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.encoder import perceptron
from worldmodel.curiosity.base import AgentSpec, Curiosity, PerEnvState
from worldmodel.curiosity.blocks.episodic import distances
from worldmodel.curiosity.blocks.features import Flat, next_obs
from worldmodel.curiosity.blocks.reembedding import ObservationMemory
from worldmodel.model.action_embedding import ActionCode
from worldmodel.model.memory.gru import GRU
from worldmodel.model.world_model import Outputs
from worldmodel.types import Obs, Rollout, Sequences, map_obs


class DEIR(Curiosity):
    """Episodic novelty, discounted by the novelty of the trajectory (Wan et al. 2023, arXiv 2304.10770, eq. 4).

    The reward is min_i |e_i - e_t+1|^2 / ( |tau_i - tau_t+1| + 1e-6 ) over the episode's i <= t. e is the embedding of
    an observation. tau is the embedding of the trajectory before it, from a GRU over the e, and is zero before the
    first one. Observations that are new in themselves are rewarded, not those that are new because the trajectory
    differed. Both embeddings of all rows of the episode are those of the present weights (`ObservationMemory`).

    Both embeddings learn to discriminate the true o_t+1 from another observation x, given the trajectory and the
    action. Loss: deir, the cross-entropy of D(tau_t+1, GRU(tau_t+1, x), a_t), with half true and half other
    observations.

    Two departures from the paper:
    - Other observations come from the minibatch, including old sequences of the replay, not from a queue of 100,000 raw
      observations.
    - In the loss, the GRU starts at the window's first row, not from the state that acting reached.

    The paper standardises the reward, subtracts the mean and weights it by 0.01 (experiment=deir_published). It has one
    value function for the sum of both rewards. Here there are two, whose sum is equal if their discounts are equal.
    """

    def __init__(
        self,
        spec: AgentSpec,
        *,
        dim: int = 64,
        hidden: int = 256,
        capacity: int = 1024,
    ):
        super().__init__(spec)
        self.features = Flat(spec.make_encoder(dim=dim))
        width = self.features.width
        self.gru = GRU(width, depth=1)
        self.code = ActionCode(spec.act_space)
        self.head = perceptron([2 * width + self.code.width, hidden, 1])
        self.trajectory = Trajectory(spec.num_envs, width)
        self.memory = ObservationMemory(spec, capacity)

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        e, episode, seen = self.memory(roll, self.features)
        tau = self.trajectory(e, episode, roll.num_new, self.memory.capacity, self.gru.cells[0])
        apart, trajectories = (distances(x[:, -roll.num_new :], x[:, :-1]) for x in (e, tau))
        ratio = apart.square() / (trajectories + 1e-6)
        nearest = ratio.masked_fill(~seen, torch.inf).min(-1).values
        return torch.where(seen.any(-1), nearest, 0.0)

    def losses(self, roll: Sequences, out: Outputs) -> dict[str, Tensor]:
        e = self.features(roll.obs)  # (B, L+1, width)
        tau = self.gru(e[:, :-1], roll.episode[:, :-1], roll.valid[:, :-1])[:, -roll.num_new :]  # (B, T, width)
        true, act = e[:, -roll.num_new :], self.code(roll.new_steps(roll.act))
        mask = roll.new_steps(roll.mask)
        other, differs = others(next_obs(roll), mask)
        wrong = true.flatten(0, 1)[other]

        def logit(x: Tensor) -> Tensor:
            return self.head(torch.cat([tau, self._step(x, tau), act], -1)).squeeze(-1)

        share = mask.sum() / (mask & differs).sum().clamp_min(1)  # equal total weight of both kinds
        loss = F.softplus(-logit(true)) + share * torch.where(differs, F.softplus(logit(wrong)), 0.0)
        return {"deir": 0.5 * loss}

    def _step(self, x: Tensor, tau: Tensor) -> Tensor:
        """Return the trajectory embedding one observation later: (B, T, width)."""
        return self.gru.cells[0](x.flatten(0, 1)[None], tau.flatten(0, 1)[None])[0].view_as(tau)


class Trajectory(PerEnvState):
    """State of the GRU before the oldest row in the memory, per environment; zero if it is the episode's first.

    Only the rows that the memory has discarded are in it, as the weights at that time read them.
    """

    def __init__(self, num_envs: int, width: int):
        super().__init__()
        self.register_buffer("oldest", torch.zeros(num_envs, width))

    def reset(self, num_envs: int) -> None:
        self.oldest = self.oldest.new_zeros(num_envs, self.oldest.shape[-1])

    @torch.no_grad()
    def forward(self, e: Tensor, episode: Tensor, num_new: int, capacity: int, cell: nn.GRU) -> Tensor:
        """Return the trajectory before each row (N, P+T+1, width) of `EpisodeRows`; the last T = num_new are new.

        Arguments: e (N, P+T+1, width), episode (N, P+T+1), and the memory's capacity.
        """
        stored = e.shape[1] - num_new - 1  # P
        count = (episode[:, :stored] >= 0).sum(1)  # (N,) rows that go on, the last ones of the P
        state = torch.where((count > 0)[:, None], self.oldest, 0.0)
        tau = e.new_zeros(e.shape)
        if stored:
            row = torch.arange(stored, device=e.device)
            place = (row + stored - count[:, None]).clamp_max(stored - 1)[..., None]  # (N, P, 1): begin at the left
            after = cell(e.take_along_dim(place, 1).transpose(0, 1).contiguous(), state[None].contiguous())[0]
            before = torch.cat([state[:, None], after.transpose(0, 1)], 1).to(tau.dtype)  # (N, P + 1, width)
            place = (row - stored + count[:, None])[..., None]
            tau[:, :stored] = torch.where(place >= 0, before.take_along_dim(place.clamp_min(0), 1), 0.0)
            state = before.take_along_dim(count[:, None, None], 1)[:, 0]
        for t in range(stored, e.shape[1]):
            if t > stored:
                state = cell(e[None, :, t - 1], state[None].contiguous())[0][0].to(tau.dtype)
                state = torch.where((episode[:, t] == episode[:, t - 1])[:, None], state, 0.0)
            tau[:, t] = state
        oldest = stored + num_new - capacity  # row that will be the memory's first
        going = episode[:, max(oldest, 0)] == episode[:, -2]
        self.oldest = torch.where(going[:, None], tau[:, oldest], 0.0) if oldest >= 0 else torch.zeros_like(state)
        return tau


def others(obs: Obs, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Draw, for each observation (B, T, ...), another one among those with mask (B, T).

    Returns its index in the flattened rows (B, T), and whether the two observations differ (B, T) bool. Of two draws
    the first is taken if it differs, else the second, as in the authors' code.
    """
    weight = mask.flatten().float() + 1e-12  # multinomial needs a positive weight if all is masked
    first, second = torch.multinomial(weight, 2 * len(weight), replacement=True).view(2, *mask.shape)

    def differs(index: Tensor) -> Tensor:
        def leaf(x: Tensor) -> Tensor:
            x = x.reshape(*mask.shape, -1)
            return (x != x.flatten(0, 1)[index]).any(-1)

        parts = map_obs(leaf, obs)
        return torch.stack(list(parts.values())).any(0) if isinstance(parts, dict) else parts

    one, two = differs(first), differs(second)
    return torch.where(one, first, second), one | two
