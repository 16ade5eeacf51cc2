"""Exploration via elliptical episodic bonuses."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.curiosity.base import AgentSpec, Curiosity, PerEnvState
from worldmodel.curiosity.blocks.features import InverseFeatures
from worldmodel.errors import check_range
from worldmodel.model.world_model import Outputs
from worldmodel.types import Rollout, Sequences

WIDEST = 1024  # features; C has the square of this number of entries


class E3B(Curiosity):
    """Elliptical episodic bonus phi(o_t+1)^T C_t^-1 phi(o_t+1) (Henaff et al. 2022, arXiv 2210.05805, eq. 2-3).

    C_t = ridge I + sum of phi(o_i) phi(o_i)^T over the episode's i <= t: an episodic count for continuous features. phi
    learns by inverse dynamics. C^-1 is updated by the Sherman-Morrison formula.

    The authors' code for MiniHack has 1,024 features, divides the bonus by its running std and bounds the sum of both
    rewards to [-1, 1] (experiment=e3b_published, where the bonus is bounded). There the bonus of a transition is that
    of o_t, here that of o_t+1, to which the action led.

    Loss: e3b_inverse.
    """

    def __init__(
        self,
        spec: AgentSpec,
        *,
        dim: int = 64,
        hidden: int = 256,
        ridge: float = 0.1,
    ):
        super().__init__(spec)
        check_range("curiosity.ridge", ridge, "(0, inf)")
        self.features = InverseFeatures(spec, dim=dim, hidden=hidden)
        if self.features.width > WIDEST:
            raise ValueError(f"curiosity.dim={dim}: makes {self.features.width} features, allowed are {WIDEST} in all")
        self.ellipse = Ellipse(spec.num_envs, self.features.width, ridge)

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        return self.ellipse(self.features(roll), roll.new_rows(roll.episode))

    def losses(self, roll: Sequences, out: Outputs) -> dict[str, Tensor]:
        return {"e3b_inverse": self.features.loss(self.features(roll), roll)}


class Ellipse(PerEnvState):
    """Inverse of C, per environment."""

    def __init__(self, num_envs: int, width: int, ridge: float):
        super().__init__()
        self.ridge = ridge
        self.register_buffer("inverse", torch.eye(width).repeat(num_envs, 1, 1) / ridge)
        self.register_buffer("episode", torch.full((num_envs,), -1))

    def reset(self, num_envs: int) -> None:
        width = self.inverse.shape[-1]
        self.inverse = torch.eye(width, device=self.inverse.device).repeat(num_envs, 1, 1) / self.ridge
        self.episode = self.episode.new_full((num_envs,), -1)

    @torch.no_grad()
    def forward(self, phi: Tensor, episode: Tensor) -> Tensor:
        """Return the bonuses (N, T) of rows 1..T, for phi (N, T+1, width) and episode (N, T+1) of a new rollout.

        The bonus of an episode's first row is 0.
        """
        phi = phi.float()
        start = torch.eye(phi.shape[-1], device=phi.device) / self.ridge
        bonus = torch.zeros_like(phi[:, 1:, 0])
        for t in range(bonus.shape[1]):
            fresh = episode[:, t] != (self.episode if t == 0 else episode[:, t - 1])
            inverse = torch.where(fresh[:, None, None], start, self.inverse)
            u = (inverse @ phi[:, t, :, None]).squeeze(-1)  # C^-1 phi
            stretch = 1 + (u * phi[:, t]).sum(-1)
            self.inverse = inverse - u[:, :, None] * u[:, None, :] / stretch[:, None, None]
            following = phi[:, t + 1]
            bonus[:, t] = ((self.inverse @ following[..., None]).squeeze(-1) * following).sum(-1)
        self.episode = episode[:, -2].clone()
        return torch.where(episode[:, 1:] == episode[:, :-1], bonus, 0.0)
