"""Pseudo-counts by a coin-flip network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from encoders.encoder import perceptron
from worldmodel.curiosity.base import AgentSpec, Curiosity
from worldmodel.curiosity.blocks.features import Flat, new_obs, next_obs
from worldmodel.curiosity.blocks.stop_gradient import StopGradient
from worldmodel.errors import check_range
from worldmodel.model.world_model import Outputs
from worldmodel.obs_normalizer import signal_normalizer
from worldmodel.running_stats import RunningMeanStd
from worldmodel.types import Obs, Rollout, Sequences

BYTES = 1024  # of an observation that identify a visit, evenly spaced


class CFN(Curiosity):
    """Coin-flip network: sqrt( mean_j f_j(o_t+1)^2 ), near 1 / sqrt(n) after n visits (Lobel et al. 2023, 2306.03186).

    Each visit has `flips` random numbers c_j of +1 or -1. f regresses them, loss mean_j (f_j - c_j)^2. Its optimum is
    the mean over the n visits, whose expected square is 1 / n. Similar observations share their counts.

    f is the sum of a trained network, which begins at 0, and of a fixed random one, whose outputs are in units of their
    running mean and std. An observation unlike all others then has a bonus near 1, as in the authors' code. The bonus
    covers the rollouts before the present one.

    Three departures from the paper:
    - The flips of a visit are the bits of a hash of its rollout, of its environment and of its step, so that passes
      over a rollout and replayed sequences train on the same flips. The paper stores them in its replay.
    - Steps are drawn uniformly: the passes over a rollout, and the replay if data.replay_batch is above 0. The paper
      draws rare ones more often. Without a replay f forgets old visits.
    - Observations are whitened, and an episode's first observation is a visit as well.

    Loss: cfn.
    """

    def __init__(self, spec: AgentSpec, *, flips: int = 32, dim: int = 128, hidden: int = 256, clip: float = 5.0):
        super().__init__(spec)
        check_range("curiosity.flips", flips, "[1, 64]", whole=True)
        self.whitening, space = signal_normalizer(spec.obs_space, spec.encoder, clip=clip)
        trained, fixed = (Flat(spec.make_encoder(space=space, dim=dim)) for _ in range(2))
        self.net = nn.Sequential(trained, nn.ReLU(), perceptron([trained.width, hidden, flips]))
        nn.init.zeros_(self.net[-1][-1].weight)
        self.prior = StopGradient(nn.Sequential(fixed, nn.ReLU(), perceptron([fixed.width, hidden, flips])))
        self.scale = RunningMeanStd((flips,), horizon=float("inf"))
        self.flips = flips

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        self.whitening.update(roll)
        self.scale.update(self.prior(self.whitening(new_obs(roll)))[:, :-1], roll.new_steps(roll.valid))
        return self(next_obs(roll)).square().mean(-1).sqrt()

    def forward(self, obs: Obs) -> Tensor:
        """Return f (*lead, flips) for raw observations (*lead, ...)."""
        white = self.whitening(obs)
        return self.net(white) + self.scale(self.prior(white))

    def losses(self, roll: Sequences, out: Outputs) -> dict[str, Tensor]:
        error = (self(new_obs(roll)) - coin_flips(roll, self.flips)).square().mean(-1)  # (B, T+1)
        first = torch.where(roll.new_steps(roll.starts), error[:, :-1], 0.0)  # no transition's next observation
        return {"cfn": error[:, 1:] + first}


@torch.no_grad()
def coin_flips(roll: Sequences, flips: int) -> Tensor:
    """Return the flips (B, T+1, flips), +1.0 or -1.0, of the rows around the new steps.

    They are the bits of a hash of the row's place and of the sequence's new rows: observations (`BYTES` of each, evenly
    spaced), actions and numbers of episodes. They are equal whenever a sequence is drawn, and independent for two
    sequences that differ in any of these.
    """
    obs = roll.new_rows(roll.obs)
    leaves = [
        *(obs.values() if isinstance(obs, dict) else [obs]),
        roll.new_steps(roll.act),
        roll.new_rows(roll.episode),
    ]
    batch, rows = leaves[-1].shape
    key = torch.zeros(batch, dtype=torch.long, device=leaves[-1].device)
    for leaf in leaves:
        raw = leaf.contiguous().view(batch, leaf.shape[1], -1).view(torch.uint8)  # (B, rows, bytes)
        raw = raw[..., :: max(1, raw.shape[-1] // BYTES)].long()
        place = torch.arange(raw[0].numel(), device=raw.device).view(raw.shape[1:])
        key = mix(key + (raw * mix(place)).sum((1, 2)))
    bits = mix(key[:, None] + mix(torch.arange(rows, device=key.device)))  # (B, T+1)
    return 2.0 * ((bits[..., None] >> torch.arange(flips, device=key.device)) & 1) - 1.0


def mix(x: Tensor) -> Tensor:
    """Return 64 pseudo-random bits for each int64 (Steele et al. 2014, SplitMix64)."""
    x = x + _signed(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ _shifted(x, shift)) * _signed(factor)
    return x ^ _shifted(x, 31)


def _signed(x: int) -> int:
    return x - 2**64 if x >= 2**63 else x


def _shifted(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & (2 ** (64 - bits) - 1)  # torch's own shift copies the sign
