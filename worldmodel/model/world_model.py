"""The world model: observations -> latents -> tokens -> memory -> what comes next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import gymnasium as gym
import torch
from torch import Tensor, nn

from worldmodel.errors import check_choice
from worldmodel.model.action_embedding import ActionEmbedding
from worldmodel.model.heads import DynamicsHead, Head, ObservationHead, Prediction
from worldmodel.running_stats import RunningMeanStd
from worldmodel.types import Obs, Rollout, Sequences


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
    head is about: the latent's `delta`, or the next latent itself (`absolute`). `heads` builds further heads,
    which train beside the dynamics head and shape the memory.
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
        heads: Mapping[str, Callable[[], Head]] = MappingProxyType({}),
    ):
        super().__init__()
        check_choice("model.predicts", predicts, ("delta", "absolute"))
        self.encoder, self.target, self.memory = encoder, target, memory
        self.predicts = predicts
        dim = memory.dim
        self.token = nn.Linear(int(torch.tensor(encoder.shape).prod()), dim)
        self.act_space = act_space
        self.act = ActionEmbedding(act_space, dim)
        self.start = nn.Parameter(torch.zeros(dim))
        self.heads = nn.ModuleDict({"dynamics": DynamicsHead(dim, target.shape, hidden)})
        for name, make_head in heads.items():
            self.heads[name] = make_head()
        self.delta_scale = RunningMeanStd(target.shape, centred=False)
        self.latent_scale = RunningMeanStd(target.shape)

    @property
    def observation(self) -> ObservationHead | None:
        """The head over the next observation's symbols, where there is one."""
        return self.head("observation")

    def head(self, name: str) -> Head | None:
        """A head by its name in the configuration; None where the model has none of that name."""
        return dict(self.heads.items()).get(name)

    def hidden_matrices(self) -> list[nn.Parameter]:
        """Weights of hidden layers: neither the inputs' tables nor the outputs."""
        inner = [p for module in (self.token, self.memory) for p in module.parameters()]
        return [*inner, *self.heads["dynamics"].hidden_matrices()]

    def tokens(self, z: Tensor, prev_act: Tensor, starts: Tensor) -> Tensor:
        """z (B, L, *shape), the action before each row, and where there was none -> x (B, L, D)."""
        before = torch.where(starts[..., None], self.start, self.act(prev_act))
        return self.token(z.flatten(starts.ndim)) + before

    def encode_sequence(self, z: Tensor, seq: Sequences) -> Tensor:
        """Memory over whole windows: z (B, R, *shape) of the first R rows of `seq` -> h (B, R, D)."""
        rows = z.shape[1]
        x = self.tokens(z, seq.prev_act[:, :rows], seq.starts[:, :rows])
        return self.memory(x, seq.episode[:, :rows], seq.valid[:, :rows])

    def forward(self, roll: Sequences) -> Outputs:
        """One pass over sequences of L + 1 rows, for training."""
        z = self.encoder(roll.obs)  # (B, L+1, *shape)
        h = self.encode_sequence(z[:, :-1], roll)[:, -roll.num_new :]  # (B, T, D)
        z = roll.new_rows(z)
        y = self.target(roll.new_rows(roll.obs), z)
        return self.predict_and_compare(h, roll.new_steps(roll.act), z, y)

    def predict_and_compare(self, h: Tensor, act: Tensor, z: Tensor, y: Tensor) -> Outputs:
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
        return self.heads["dynamics"](h, self.act(act), self.latent_scale(y))

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
    def score_rollout(self, roll: Rollout) -> Outputs:
        """The acting model's own view of a fresh rollout: its h, held against latents whose scales are first brought
        up to date. No second pass through the memory is needed."""
        obs = roll.new_rows(roll.obs)
        z = self.encoder(obs)
        y = self.target(obs, z)
        self.delta_scale.update(y[:, 1:] - y[:, :-1], roll.new_steps(roll.mask))
        self.latent_scale.update(y[:, :-1], roll.new_steps(roll.valid))
        return self.predict_and_compare(roll.h, roll.new_steps(roll.act), z, y)

    def losses(self, out: Outputs, roll: Sequences) -> dict[str, Tensor]:
        """Unreduced (B, T) losses of the heads and of the target, by name."""
        act, mask = roll.new_steps(roll.act), roll.new_steps(roll.mask)
        losses = self.heads["dynamics"].losses(self, out, roll)
        losses |= self.target.losses(roll.new_rows(roll.obs), act, out.z, out.y, mask)
        for name, head in self.heads.items():
            if name != "dynamics":
                losses |= head.losses(self, out, roll)
        return losses
