"""Discriminative-model-based episodic intrinsic reward."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.encoder import perceptron
from worldmodel.curiosity.base import AgentSpec, Curiosity, PerEnvState
from worldmodel.curiosity.blocks.episodic import EpisodicMemory, distances
from worldmodel.curiosity.blocks.features import Flat, new_obs, next_obs
from worldmodel.model.action_embedding import ActionCode
from worldmodel.model.memory.gru import GRU
from worldmodel.model.world_model import Outputs
from worldmodel.types import Obs, Rollout, Sequences, map_obs


class DEIR(Curiosity):
    """Episodic novelty, discounted by the novelty of the trajectory (Wan et al. 2023, arXiv 2304.10770, eq. 4).

    The reward is min_i |e_i - e_t+1|^2 / ( |tau_i - tau_t+1| + 1e-6 ) over the episode's i <= t. e is the embedding of
    an observation. tau is the embedding of the trajectory before it, from a GRU over the e, and is zero before the
    first one. Observations that are new in themselves are rewarded, not those that are new because the trajectory
    differed.

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
        self.memory = EpisodicMemory(spec.num_envs, (2 * width,), capacity)

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        e, episode = self.features(new_obs(roll)), roll.new_rows(roll.episode)
        tau = self.trajectory(e, episode, self.gru.cells[0])
        past, seen = self.memory(torch.cat([e, tau], -1), episode)
        e_past, tau_past = past.chunk(2, -1)
        ratio = distances(e[:, 1:], e_past).square() / (distances(tau[:, 1:], tau_past) + 1e-6)
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
    """State of the GRU before the next row, per environment."""

    def __init__(self, num_envs: int, width: int):
        super().__init__()
        self.register_buffer("state", torch.zeros(num_envs, width))
        self.register_buffer("episode", torch.full((num_envs,), -1))

    def reset(self, num_envs: int) -> None:
        self.state = self.state.new_zeros(num_envs, self.state.shape[-1])
        self.episode = self.episode.new_full((num_envs,), -1)

    @torch.no_grad()
    def forward(self, e: Tensor, episode: Tensor, cell: nn.GRU) -> Tensor:
        """Return the trajectory before each row (N, T+1, width), for e (N, T+1, width) and episode (N, T+1).

        The rows are those of a new rollout; the state advances to its end.
        """
        states = []
        for t in range(e.shape[1]):
            goes_on = episode[:, t] == (self.episode if t == 0 else episode[:, t - 1])
            before = torch.where(goes_on[:, None], self.state, 0.0)
            states.append(before)
            if t < e.shape[1] - 1:
                self.state = cell(e[None, :, t], before[None].contiguous())[0][0].to(before.dtype)
        self.episode = episode[:, -2].clone()
        return torch.stack(states, 1)


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
