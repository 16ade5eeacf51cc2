"""Episodic novelty through temporal distance."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.encoder import perceptron
from worldmodel.curiosity.base import AgentSpec, Curiosity
from worldmodel.curiosity.blocks.features import Flat, new_obs
from worldmodel.curiosity.blocks.reembedding import ObservationMemory
from worldmodel.errors import check_range
from worldmodel.model.world_model import Outputs
from worldmodel.types import Rollout, Sequences

NEVER = -1e9  # finite, or the gradient of a batch without a real transition would be nan


class ETD(Curiosity):
    """Temporal distance to the nearest earlier observation of the episode (Jiang et al. 2025, arXiv 2501.15418).

    The reward is min_i d(o_i, o_t+1) over the episode's i <= t, where d is a learned number of steps from one
    observation to another. d is a quasimetric (see `quasimetric`), so that its optimum is the successor distance. All
    of an episode's observations are embedded with the present weights (`ObservationMemory`).

    The loss etd is contrastive. An observation x is paired with a y that follows it by a geometrically distributed
    number of steps (discount `gamma`, truncated at the episode's last row in the window). The energy c(y) - d(x, y)
    should exceed that of x with other pairs' y and that of y with other pairs' x: symmetric InfoNCE at temperature 1,
    plus `logsumexp` times the squared log-sum-exp. At most `pairs` pairs of a minibatch are compared.

    The paper standardises the reward, subtracts the mean and weights it by 0.01 (experiment=etd_published).
    """

    def __init__(
        self,
        spec: AgentSpec,
        *,
        dim: int = 128,
        hidden: int = 256,
        width: int = 64,
        gamma: float = 0.99,
        logsumexp: float = 0.1,
        pairs: int = 256,
        capacity: int = 1024,
    ):
        super().__init__(spec)
        check_range("curiosity.gamma", gamma, "(0, 1)")
        if width < 2 or width % 2:
            raise ValueError(f"curiosity.width={width}: allowed are even numbers from 2")
        check_range("curiosity.pairs", pairs, "[2, inf)", whole=True)
        self.features = Flat(spec.make_encoder(dim=dim))
        self.embed = nn.Sequential(nn.ReLU(), perceptron([self.features.width, hidden, width]))
        self.potential = nn.Sequential(nn.ReLU(), perceptron([self.features.width, hidden, 1]))
        self.memory = ObservationMemory(spec, capacity)
        self.gamma, self.logsumexp, self.pairs = gamma, logsumexp, pairs

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        x, _, seen = self.memory(roll, lambda obs: self.embed(self.features(obs)))
        past, following = x[:, :-1], x[:, -roll.num_new :]
        # one step at a time: the distance goes through (N, P + T, width) numbers
        nearest = [
            quasimetric(past, following[:, t, None]).masked_fill(~seen[:, t], torch.inf).min(-1).values
            for t in range(roll.num_new)
        ]
        return torch.where(seen.any(-1), torch.stack(nearest, 1), 0.0)

    def losses(self, roll: Sequences, out: Outputs) -> dict[str, Tensor]:
        mask, episode = roll.new_steps(roll.mask), roll.new_rows(roll.episode)
        later = sample_later(episode, self.gamma)  # (B, T)
        features = self.features(new_obs(roll))  # (B, T+1, features)
        # a random choice among the real transitions, without a device synchronisation for their number
        order = torch.rand(mask.shape, device=mask.device).masked_fill(~mask, -1.0).flatten()
        chosen = order.topk(min(self.pairs, order.numel())).indices
        real = mask.flatten()[chosen]
        x = features[:, :-1].flatten(0, 1)[chosen]
        y = features.take_along_dim(later[..., None], 1).flatten(0, 1)[chosen]
        logits = self.potential(y).T - quasimetric(self.embed(x)[:, None], self.embed(y)[None])  # (P, P)
        loss = torch.where(real, contrast(logits.float(), real, self.logsumexp), 0.0)
        share = mask.sum() / real.sum().clamp_min(1)  # so that the mean over all is the mean over the chosen
        return {"etd": torch.zeros_like(order).scatter(0, chosen, loss * share).view(mask.shape)}


def quasimetric(x: Tensor, y: Tensor) -> Tensor:
    """Return the distance from x (*lead, D) to y (*lead, D), which is not symmetric: (*lead).

    Metric residual network (Liu et al. 2023, arXiv 2208.08133): relu(max_i x_i - y_i) over the first half of the
    dimensions plus the Euclidean distance over the second half.
    """
    (x1, x2), (y1, y2) = x.chunk(2, -1), y.chunk(2, -1)
    return F.relu((x1 - y1).amax(-1)) + ((x2 - y2).square().sum(-1) + 1e-8).sqrt()


def sample_later(episode: Tensor, gamma: float) -> Tensor:
    """Draw a later row of the same episode for each row t: episode (B, T+1) -> (B, T).

    The row is t + k with P(k) ~ gamma^k, from 1 up to the episode's last row in the window. It is t itself if no row
    follows.
    """
    rows = episode.shape[1]
    changes = torch.ones_like(episode, dtype=torch.bool)
    changes[:, :-1] = episode[:, 1:] != episode[:, :-1]
    row = torch.arange(rows, device=episode.device)
    last = torch.where(changes, row, rows).flip(1).cummin(1).values.flip(1)  # (B, T+1): the episode's last row
    left = (last - row)[:, :-1]
    u = torch.rand(left.shape, device=episode.device)
    steps = torch.log1p(-(1 - gamma**left) * u) / math.log(gamma)
    return row[:-1] + torch.minimum(steps.ceil().long().clamp_min(1), left)


def contrast(logits: Tensor, real: Tensor, logsumexp: float) -> Tensor:
    """Return the symmetric InfoNCE (P,) of each pair among the real ones.

    logits (P, P) has the pairs on its diagonal; real (P,) bool.
    """
    positive = logits.diagonal()
    forward = logits.masked_fill(~real, NEVER).logsumexp(1)
    backward = logits.masked_fill(~real[:, None], NEVER).logsumexp(0)
    return 0.5 * (forward + backward) - positive + logsumexp * forward.square()
