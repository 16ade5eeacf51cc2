"""Open-loop prediction of the latents of a slow encoder."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.encoder import perceptron
from worldmodel.curiosity.base import AgentSpec, Curiosity
from worldmodel.curiosity.blocks.features import Flat
from worldmodel.curiosity.blocks.stop_gradient import StopGradient
from worldmodel.distributed import sum_over_ranks, world_size
from worldmodel.errors import check_range
from worldmodel.masked import masked_mean
from worldmodel.model.action_embedding import ActionCode
from worldmodel.model.memory import GRU
from worldmodel.model.targets.ema import follow
from worldmodel.model.world_model import Outputs
from worldmodel.types import Rollout, Sequences


class BYOLExplore(Curiosity):
    """Error of predicting a slow encoder's latents several steps ahead (Guo et al. 2022, arXiv 2206.08332).

    A GRU encodes (phi(o_t), a_t-1) into a belief b_t. A second GRU rolls it forward open loop: b_t,k from b_t,k-1 and
    a_t+k-1. A perceptron q predicts the latent of o_t+k from it, with the error L(t, k) = || q(b_t,k)/|.| -
    phi'(o_t+k)/|.| ||^2, where phi' is the moving average of the encoder phi. The error of a transition is the sum of
    L(p, k) over all predictions of its next observation, p + k = t + 1, k up to `horizon`. Predictions do not cross an
    episode's end and do not start before the window.

    The reward is that error divided by its running std, minus the running mean of the result, clipped below at 0. The
    paper's averages decay by 1 % per minibatch. `reward_decay` applies per rollout, which is 32 minibatches by default.

    Loss: byol_explore, the error divided by `horizon`. The paper divides by the number of steps that remain after a
    start, which differs only for the last steps of an episode or window.
    """

    def __init__(
        self,
        spec: AgentSpec,
        *,
        dim: int = 128,
        hidden: int = 128,
        horizon: int = 8,
        decay: float = 0.99,
        reward_decay: float = 0.7,
    ):
        super().__init__(spec)
        check_range("curiosity.horizon", horizon, "[1, inf)", whole=True)
        check_range("curiosity.decay", decay, "[0, 1]")
        check_range("curiosity.reward_decay", reward_decay, "[0, 1)")
        self.encoder = Flat(spec.make_encoder(dim=dim))
        self.slow = StopGradient(copy.deepcopy(self.encoder))
        self.code = ActionCode(spec.act_space)
        self.token = nn.Linear(self.encoder.width + self.code.width, hidden)
        self.belief = GRU(hidden, depth=1)
        self.ahead = nn.GRUCell(self.code.width, hidden)
        self.predictor = perceptron([hidden, 2 * hidden, self.encoder.width])
        self.horizon, self.decay = horizon, decay
        self.error, self.square, self.level = (RunningMean(reward_decay) for _ in range(3))

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        error, mask = self.errors(roll), roll.new_steps(roll.mask)
        mean, square = self.error(error, mask), self.square(error.square(), mask)
        error = error / (square - mean.square()).clamp_min(1e-8).sqrt()
        return (error - self.level(error, mask)).clamp_min(0.0)

    def losses(self, roll: Sequences, out: Outputs) -> dict[str, Tensor]:
        return {"byol_explore": self.errors(roll) / self.horizon}

    def update(self) -> None:
        follow(self.slow.net, self.encoder, self.decay)

    def errors(self, roll: Sequences) -> Tensor:
        """Return the summed error of each new transition: (B, T)."""
        count, new, last = len(roll), roll.num_new, roll.mask.shape[1] - 1
        goal = F.normalize(self.slow(roll.obs), dim=-1)  # (B, L+1, width)
        belief, code = self._beliefs(roll)
        first = max(0, last - new - self.horizon + 1)  # the first row from which a new transition is predicted
        state, real = belief[:, first:last], roll.mask[:, first:last]
        total = goal.new_zeros(count, new)
        for k in range(min(self.horizon, last - first)):
            rows = slice(first + k, last)  # the transitions k steps after their starts
            act, starts = code[:, rows], last - first - k
            state = self.ahead(act.flatten(0, 1), state[:, :starts].flatten(0, 1)).unflatten(0, (count, starts))
            real = real[:, :starts] & roll.mask[:, rows]
            error = (F.normalize(self.predictor(state), dim=-1) - goal[:, first + k + 1 :]).square().sum(-1)
            error = torch.where(real, error, 0.0)[:, -new:]
            total = total + F.pad(error, (new - error.shape[1], 0))
        return total

    def _beliefs(self, roll: Sequences) -> tuple[Tensor, Tensor]:
        """Return b (B, L+1, hidden) of all rows, and the codes of their actions (B, L+1, code)."""
        code = self.code(roll.act)
        before = F.pad(code[:, :-1], (0, 0, 1, 0)).masked_fill(roll.starts[..., None], 0.0)
        x = self.token(torch.cat([self.encoder(roll.obs), before], -1))
        return self.belief(x, roll.episode, roll.valid), code


class RunningMean(nn.Module):
    """Exponential moving average of the rollouts' means, bias-corrected and equal on all ranks."""

    def __init__(self, decay: float):
        super().__init__()
        self.decay = decay
        self.register_buffer("total", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))

    @torch.no_grad()
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the average (scalar); in training mode, first add the mean of x (B, T) where mask (B, T)."""
        if self.training:
            mean = sum_over_ranks(masked_mean(x, mask)) / world_size()
            self.total.lerp_(mean, 1 - self.decay)
            self.weight.lerp_(torch.ones_like(self.weight), 1 - self.decay)
        return self.total / self.weight.clamp_min(1e-8)
