"""Never Give Up."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.curiosity.base import AgentSpec, Curiosity
from worldmodel.curiosity.blocks.episodic import distances
from worldmodel.curiosity.blocks.features import InverseFeatures, next_obs
from worldmodel.curiosity.blocks.reembedding import ObservationMemory
from worldmodel.curiosity.rnd import Distillation
from worldmodel.errors import check_range
from worldmodel.model.world_model import Outputs
from worldmodel.running_stats import RunningMeanStd
from worldmodel.types import Rollout, Sequences


class NGU(Curiosity):
    """Episodic novelty scaled by lifelong novelty: r_episodic * clip(alpha, 1, limit).

        r_episodic = 1 / ( sqrt( sum_i K(d_i^2) ) + c ), and 0 if that root plus c exceeds `max_similarity`
        K(d^2) = eps / ( max(d^2 / m - cluster, 0) + eps )
        alpha = 1 + (e - mean(e)) / std(e)

    (Badia et al. 2020, arXiv 2002.06038, eq. 1-2, alg. 1.) d_i are the distances of phi(o_t+1) to its k nearest
    features among the earlier ones of the episode, m is the running mean of the d_i^2, and e is the error of random
    network distillation (as in `RND`). phi learns by inverse dynamics. With fewer than k earlier observations the sum
    has fewer terms, as in the paper. All features of an episode are those of the present weights, see
    `ObservationMemory`. The paper's family of policies, each with its own intrinsic weight and discount,
    is not implemented.

    Losses: ngu_inverse and ngu_rnd.
    """

    def __init__(
        self,
        spec: AgentSpec,
        *,
        dim: int = 32,
        hidden: int = 256,
        neighbours: int = 10,
        eps: float = 1e-4,
        cluster: float = 0.008,
        c: float = 0.001,
        max_similarity: float = 8.0,
        limit: float = 5.0,
        capacity: int = 1024,
        horizon: float = 1e5,
        rnd_dim: int = 128,
        rnd_clip: float = 5.0,
    ):
        super().__init__(spec)
        check_range("curiosity.neighbours", neighbours, "[1, inf)", whole=True)
        check_range("curiosity.limit", limit, "[1, inf)")
        self.features = InverseFeatures(spec, dim=dim, hidden=hidden)
        self.memory = ObservationMemory(spec, capacity)
        self.distillation = Distillation(spec, dim=rnd_dim, clip=rnd_clip)
        self.nearest = RunningMeanStd(horizon=horizon, centred=False)  # of d_i, so that its second moment is m
        self.novelty = RunningMeanStd(horizon=horizon)
        self.neighbours, self.eps, self.cluster, self.c = neighbours, eps, cluster, c
        self.max_similarity, self.limit = max_similarity, limit

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        phi, _, seen = self.memory(roll, self.features.features)
        d = distances(phi[:, -roll.num_new :], phi[:, :-1]).masked_fill(~seen, torch.inf)
        d = d.topk(min(self.neighbours, d.shape[-1]), largest=False).values
        return self.episodic(d, roll) * self.alpha(roll)

    def episodic(self, d: Tensor, roll: Sequences) -> Tensor:
        """Return r_episodic (N, T) for d (N, T, k), the smallest distances, infinite beyond their number."""
        there = d.isfinite() & roll.new_steps(roll.mask)[..., None]
        self.nearest.update(torch.where(there, d, 0.0), there)
        unit = d.square() / self.nearest.std.square()
        kernel = self.eps / ((unit - self.cluster).clamp_min(0.0) + self.eps)  # 0 for the infinite
        similarity = kernel.sum(-1).sqrt() + self.c
        paid = (similarity <= self.max_similarity) & there.any(-1)
        return torch.where(paid, 1 / similarity, 0.0)

    def alpha(self, roll: Sequences) -> Tensor:
        """Return the lifelong novelty of the observations in [1, limit]: (N, T)."""
        self.distillation.update(roll)
        error = self.distillation(next_obs(roll))
        self.novelty.update(error, roll.new_steps(roll.mask))
        return (1 + self.novelty(error)).clamp(1.0, self.limit)

    def losses(self, roll: Sequences, out: Outputs) -> dict[str, Tensor]:
        return {
            "ngu_inverse": self.features.loss(self.features(roll), roll),
            "ngu_rnd": self.distillation.loss(roll),
        }
