"""The world model: observations -> latents -> tokens -> memory -> predictions of the next step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Literal, cast

import gymnasium as gym
import torch
from torch import Tensor, nn

from encoders import CodeEncoder, Encoder
from worldmodel.errors import SettingError, check_choice
from worldmodel.model.action_embedding import ActionEmbedding
from worldmodel.model.heads import CodesHead, CodesPrediction, DynamicsHead, Forecast, Head, ObservationHead
from worldmodel.model.memory import Memory
from worldmodel.model.targets.base import Target, without_scale
from worldmodel.model.targets.codes import Codes
from worldmodel.running_stats import RunningMeanStd
from worldmodel.types import Obs, Rollout, Sequences


@dataclass
class Outputs:
    """Outputs of one pass of the world model over a rollout, for its T new transitions."""

    z: Tensor  # (B, T+1, *encoder.shape)
    y: Tensor  # (B, T+1, *target.shape)
    h: Tensor  # (B, T, D)
    pred: Forecast
    change: Tensor  # (B, T, *latent) what was predicted, in normalised units: the delta, or the next latent
    unit: Tensor  # (*latent) of `change`, in standard deviations of the delta
    delta_std: Tensor  # (*latent)

    @cached_property
    def error(self) -> Tensor:
        """Observed minus predicted change (B, T, *latent), in normalised units."""
        return self.change - self.pred.mean

    @cached_property
    def skill_error(self) -> Tensor:
        """Squared error of the predicted delta (B, T), in units of the delta's variance."""
        return (self.error.detach() * self.unit).square().flatten(2).mean(-1)

    @cached_property
    def skill_base(self) -> Tensor:
        """Squared delta (B, T) in the same units: the error of predicting no change."""
        return ((self.y[:, 1:] - self.y[:, :-1]).detach() / self.delta_std).square().flatten(2).mean(-1)

    @property
    def excess(self) -> Tensor:
        """Surprise above what was expected (B, T), 0 on average for a calibrated model; see `Prediction.excess`."""
        return self.pred.excess(self.error, self.y[:, 1:])


class WorldModel(nn.Module):
    """World model with one token per step: x_t = W z_t + E a_{t-1}; h_t = memory(x_<=t); heads read (h_t, a_t).

    h_t does not depend on a_t, so that the policy can read it as well.

    predicts: target of the Gaussian head: the latent's `delta`, or the next latent (`absolute`).
    heads: constructors of further heads, which are trained together with the dynamics head.

    Raises SettingError for other values of `predicts`.
    """

    encoder: Encoder
    target: Target
    memory: Memory

    def __init__(
        self,
        encoder: Encoder,
        target: Target,
        memory: Memory,
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
        if isinstance(target, Codes):
            if predicts != "delta":
                raise SettingError("model.predicts", predicts, "with target=codes is delta")
            dynamics: DynamicsHead = CodesHead(dim, target, hidden)
        else:
            dynamics = DynamicsHead(dim, target.shape, hidden)
        self.heads = nn.ModuleDict({"dynamics": dynamics})
        for name, make_head in heads.items():
            self.heads[name] = make_head()
        self.delta_scale = RunningMeanStd(target.shape, centred=False, horizon=target.scale_horizon)
        self.latent_scale = RunningMeanStd(target.shape, horizon=target.scale_horizon)

    @property
    def observation(self) -> ObservationHead | None:
        """The head that predicts the next observation's symbols, None without it."""
        return cast("ObservationHead | None", self.head("observation"))

    @property
    def dynamics(self) -> DynamicsHead:
        """The head that predicts the next latent, the reward and the end of the episode."""
        return cast(DynamicsHead, self.heads["dynamics"])

    def head(self, name: str) -> Head | None:
        """Return a head by its name in the configuration, None if the model has no head of this name."""
        return cast("Head | None", dict(self.heads.items()).get(name))

    def hidden_matrices(self) -> list[Tensor]:
        """Return the parameters of hidden layers, without the tables of the inputs and the output layers."""
        inner: list[Tensor] = [p for module in (self.token, self.memory) for p in module.parameters()]
        return [*inner, *self.dynamics.hidden_matrices()]

    def tokens(self, z: Tensor, prev_act: Tensor, starts: Tensor) -> Tensor:
        """Return the tokens x (*lead, D) of rows with latents z (*lead, *shape).

        prev_act (*lead, *act_shape) is the action of the row before; it has no effect where starts (*lead) is True.
        """
        before = torch.where(starts[..., None], self.start, self.act(prev_act))
        return self.token(z.flatten(starts.ndim)) + before

    def encode_sequence(self, z: Tensor, seq: Sequences) -> Tensor:
        """Encode whole windows: z (B, R, *shape) of the first R rows of `seq` -> h (B, R, D)."""
        rows = z.shape[1]
        x = self.tokens(z, seq.prev_act[:, :rows], seq.starts[:, :rows])
        return self.memory(x, seq.episode[:, :rows], seq.valid[:, :rows])

    def forward(self, roll: Sequences) -> Outputs:
        """Encode sequences of L + 1 rows and predict their T new transitions, for training."""
        z = self.encoder(roll.obs)  # (B, L+1, *shape)
        h = self.encode_sequence(z[:, :-1], roll)[:, -roll.num_new :]  # (B, T, D)
        z = roll.new_rows(z)
        y = self.target(roll.new_rows(roll.obs), z)
        return self.predict_and_compare(h, roll.new_steps(roll.act), z, y, roll.new_steps(roll.mask))

    def predict_and_compare(self, h: Tensor, act: Tensor, z: Tensor, y: Tensor, mask: Tensor | None = None) -> Outputs:
        """Predict from h (B, T, D) and act (B, T, *act_shape), and compare with y (B, T+1, *latent).

        If y has gradients, those of the error do not change its scale over the steps where mask (B, T) is True; see
        `without_scale`. Otherwise the mask has no effect.
        """
        delta, now = y[:, 1:] - y[:, :-1], self.latent_scale(y[:, :-1])
        scale = self.delta_scale.std
        change = delta / scale if self.predicts == "delta" else self.latent_scale(y[:, 1:])
        if mask is not None and y.requires_grad:
            change, now = without_scale(change, mask), without_scale(now, mask)
        pred = self.dynamics(h, self.act(act), now)
        unit = torch.ones_like(scale) if self.predicts == "delta" else self.latent_scale.std / scale
        return Outputs(z, y, h, pred, change, unit, scale)

    def predict(self, h: Tensor, act: Tensor, y: Tensor) -> Forecast:
        """Predict the next step from h (*lead, D), act (*lead, *act_shape) and y (*lead, *latent)."""
        return self.dynamics(h, self.act(act), self.latent_scale(y))

    def expected_delta(self, pred: Forecast, y: Tensor) -> Tensor:
        """Return the mean prediction as a change of the latent y, in units of y: (*lead, *latent)."""
        if self.predicts == "delta":
            return pred.mean * self.delta_scale.std
        return pred.mean * self.latent_scale.std + self.latent_scale.mean - y

    def imagine(self, h: Tensor, act: Tensor, obs: Obs) -> Obs:
        """Sample the next observation (N, *obs_shape) from the head of codes: that of the target, or `observation`.

        h: memory (N, D). act: action (N, *act_shape). obs: present observation (N, *obs_shape).
        """
        if isinstance(self.target, Codes):
            pred = cast(CodesPrediction, self.predict(h, act, self.target(obs, h)))
            return self.observation_of(self.target.split(pred.sample()))
        assert self.observation is not None, "imagination needs the head `observation`"
        return self.observation_of(self.observation.sample(h, self.act(act), self.symbols(obs)))

    def observation_of(self, codes: Tensor) -> Obs:
        """Return the observations (*lead, *obs_shape) of codes (*lead, cells, C)."""
        return cast(CodeEncoder, self.encoder).observation(codes)

    def symbols(self, obs: Obs) -> Tensor:
        """Return the codes that an observation head predicts: obs (*lead, *obs_shape) -> int64 (*lead, cells, C)."""
        return cast(CodeEncoder, self.encoder).codes(cast(Tensor, obs))

    @torch.no_grad()
    def score_rollout(self, roll: Rollout) -> Outputs:
        """Update the running scales with a new rollout, and return the outputs for it.

        The memory is not run again; h is that of acting.
        """
        obs = roll.new_rows(roll.obs)
        z = self.encoder(obs)
        y = self.target(obs, z)
        if self.target.scaled:
            self.delta_scale.update(y[:, 1:] - y[:, :-1], roll.new_steps(roll.mask))
            self.latent_scale.update(y[:, :-1], roll.new_steps(roll.valid))
        out = self.predict_and_compare(roll.h, roll.new_steps(roll.act), z, y)
        self.dynamics.observe(y, roll)
        return out

    def losses(self, out: Outputs, roll: Sequences) -> dict[str, Tensor]:
        """Return the unreduced (B, T) losses of the heads and of the target, by name."""
        act, mask = roll.new_steps(roll.act), roll.new_steps(roll.mask)
        losses = self.dynamics.losses(self, out, roll)
        losses |= self.target.losses(roll.new_rows(roll.obs), act, out.z, out.y, mask)
        for name, head in self.heads.items():
            if name != "dynamics":
                losses |= cast(Head, head).losses(self, out, roll)
        return losses
