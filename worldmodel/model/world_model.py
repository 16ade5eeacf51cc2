"""The world model: observations -> latents -> tokens -> memory -> what comes next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.model.action_embedding import ActionEmbedding
from worldmodel.model.heads.dynamics import Heads, Prediction, symlog
from worldmodel.model.heads.observation import ObservationHead
from worldmodel.model.heads.recall import RecallHead
from worldmodel.running_stats import RunningMeanStd
from worldmodel.types import Obs, Rollout, Sequences, map_obs


@dataclass
class Outputs:
    """One pass of the world model over a rollout, on its T new transitions."""

    z: Tensor  # (B, T+1, *encoder.shape)
    y: Tensor  # (B, T+1, *target.shape)
    h: Tensor  # (B, T, D)
    pred: Prediction
    error: Tensor  # (B, T, *latent) observed minus predicted, in normalised units
    skill_error: Tensor  # (B, T) squared error of the predicted delta, in units of the delta's variance
    skill_base: Tensor  # (B, T) the same for the prediction that nothing changes


class WorldModel(nn.Module):
    """One token a step: x_t = W z_t + E a_{t-1}; h_t = memory(x_<=t); heads read (h_t, a_t).

    h_t does not depend on a_t, so it is also the memory that the policy reads. `predicts` is what the Gaussian
    head is about: the latent's `delta`, or the next latent itself (`absolute`). With `observation`, a categorical
    head over the next observation's symbols is trained beside it, and the memory with it; with `recall`, one over the
    symbols that the episode has shown before.
    """

    def __init__(
        self,
        encoder: nn.Module,
        target: nn.Module,
        memory: nn.Module,
        act_space: gym.Space,
        *,
        hidden: int = 256,
        predicts: Literal["delta", "absolute"] = "delta",
        observation: bool = False,
        recall: bool = False,
        obs_space: gym.Space | None = None,
    ):
        super().__init__()
        if predicts not in ("delta", "absolute"):
            raise ValueError(f"model.predicts={predicts}: allowed are delta, absolute")
        self.encoder, self.target, self.memory = encoder, target, memory
        self.predicts = predicts
        dim = memory.dim
        self.token = nn.Linear(int(torch.tensor(encoder.shape).prod()), dim)
        self.act = ActionEmbedding(act_space, dim)
        self.start = nn.Parameter(torch.zeros(dim))
        self.heads = Heads(dim, target.shape, hidden)
        self.observation = ObservationHead(dim, encoder, obs_space, hidden) if observation else None
        self.recall = RecallHead(dim, encoder) if recall else None
        self.delta_scale = RunningMeanStd(target.shape, centred=False)
        self.latent_scale = RunningMeanStd(target.shape)

    def tokens(self, z: Tensor, prev_act: Tensor, starts: Tensor) -> Tensor:
        """z (B, L, *shape), the action before each row, and where there was none -> x (B, L, D)."""
        before = torch.where(starts[..., None], self.start, self.act(prev_act))
        return self.token(z.flatten(starts.ndim)) + before

    def remember(self, z: Tensor, seq: Sequences) -> Tensor:
        """Memory over whole windows: z (B, R, *shape) of the first R rows of `seq` -> h (B, R, D)."""
        rows = z.shape[1]
        x = self.tokens(z, seq.prev_act[:, :rows], seq.starts[:, :rows])
        return self.memory(x, seq.episode[:, :rows], seq.valid[:, :rows])

    def forward(self, roll: Rollout) -> Outputs:
        """The same forward pass for training and for scoring; `roll` has L + 1 rows."""
        new = roll.new
        z = self.encoder(roll.obs)  # (B, L+1, *shape)
        h = self.remember(z[:, :-1], roll)[:, -new:]  # (B, T, D)
        z = z[:, -new - 1 :]
        y = self.target(map_obs(lambda o: o[:, -new - 1 :], roll.obs), z)
        return self.outcome(h, roll.tail(roll.act), z, y)

    def outcome(self, h: Tensor, act: Tensor, z: Tensor, y: Tensor) -> Outputs:
        """Predict from (h (B, T, D), act) and hold it against y (B, T+1, *latent)."""
        pred = self.predict(h, act, y[:, :-1])
        delta = y[:, 1:] - y[:, :-1]
        scale = self.delta_scale.std
        if self.predicts == "delta":
            error = delta / scale - pred.mean
            raw = error
        else:
            error = self.latent_scale(y[:, 1:]) - pred.mean
            raw = error * (self.latent_scale.std / scale)
        squares = raw.detach().square().flatten(2).mean(-1)
        return Outputs(z, y, h, pred, error, squares, (delta.detach() / scale).square().flatten(2).mean(-1))

    def predict(self, h: Tensor, act: Tensor, y: Tensor) -> Prediction:
        """(h, act, y) of any leading shape -> Prediction."""
        return self.heads(h, self.act(act), self.latent_scale(y))

    def expected_delta(self, pred: Prediction, y: Tensor) -> Tensor:
        """The mean prediction as a change of the latent in its own units: (*lead, *latent)."""
        if self.predicts == "delta":
            return pred.mean * self.delta_scale.std
        return pred.mean * self.latent_scale.std + self.latent_scale.mean - y

    def imagine(self, h: Tensor, act: Tensor, obs: Obs) -> Obs:
        """An observation drawn from what the observation head expects after h (N, D), act (N, *act_shape), obs (N,
        *obs_shape)."""
        codes = self.observation.sample(h, self.act(act), self.symbols(obs))
        return self.encoder.observation(codes)

    def symbols(self, obs: Obs) -> Tensor:
        """The codes that an observation head predicts: obs leaves (*lead, *obs_shape) -> int64 (*lead, cells, C)."""
        return self.encoder.codes(obs)

    @torch.no_grad()
    def review(self, roll: Rollout) -> Outputs:
        """The acting model's own view of a fresh rollout: its h, held against latents whose scales are first brought
        up to date. No second pass through the memory is needed."""
        obs = map_obs(lambda o: o[:, -roll.new - 1 :], roll.obs)
        z = self.encoder(obs)
        y = self.target(obs, z)
        self.delta_scale.update(y[:, 1:] - y[:, :-1], roll.tail(roll.mask))
        self.latent_scale.update(y[:, :-1], roll.tail(roll.valid))
        return self.outcome(roll.h, roll.tail(roll.act), z, y)

    def losses(self, out: Outputs, roll: Rollout) -> dict[str, Tensor]:
        """Unreduced (B, T) losses.

        `delta` is the Gaussian negative log-likelihood weighted by the detached sigma (Seitzer et al. 2022, beta
        .5), which keeps the mean learning where the variance is large. `observation` is in nats a cell,
        `recall` in nats.
        """
        inverse = torch.exp(-out.pred.logvar)
        nll = 0.5 * (out.error.square() * inverse + out.pred.logvar)
        nll = (nll * torch.exp(0.5 * out.pred.logvar).detach()).flatten(2).mean(-1)
        act, mask = roll.tail(roll.act), roll.tail(roll.mask)
        losses = {
            "delta": nll,
            "rew": 0.5 * (out.pred.rew - symlog(roll.tail(roll.rew_ext))).square(),
            "end": F.binary_cross_entropy_with_logits(
                out.pred.end, roll.tail(roll.end).to(out.pred.end.dtype), reduction="none"
            ),
            **self.target.losses(map_obs(lambda o: o[:, -roll.new - 1 :], roll.obs), act, out.z, out.y, mask),
        }
        if self.observation is not None:
            codes = self.symbols(map_obs(lambda o: o[:, -roll.new - 1 :], roll.obs))
            nll = self.observation.nll(out.h, self.act(act), codes[:, 1:], codes[:, :-1])
            losses["observation"] = nll / self.observation.cells
        if self.recall is not None:
            earlier = self.recall.earlier(self.symbols(roll.obs), roll.starts, roll.valid)
            losses["recall"] = self.recall.nll(out.h, roll.tail(earlier))
        return losses
