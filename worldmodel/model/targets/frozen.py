"""Fixed features."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium as gym
import torch
from torch import Tensor

from encoders import Encoder
from worldmodel.model.targets.base import Target
from worldmodel.types import Obs


class Frozen(Target):
    """A separate encoder that keeps its initialisation.

    It has random orthogonal features (Burda et al. 2019, "Large-scale study of curiosity-driven learning"), or is a
    pretrained backbone under a random projection. y carries no gradient.

    dim: width of the features.
    features: builds the encoder from the observation space; null: the main encoder's configuration.
    """

    def __init__(
        self,
        make_encoder: Callable[..., Encoder],
        obs_space: gym.Space,
        *,
        dim: int = 64,
        features: Callable[..., Encoder] | None = None,
    ):
        super().__init__()
        self.features = make_encoder(dim=dim) if features is None else features(obs_space, dim=dim)
        self.features.requires_grad_(False)
        self.shape = self.features.shape
        self.train()

    def train(self, mode: bool = True) -> Frozen:
        super().train(mode)
        self.features.eval()
        return self

    @torch.no_grad()
    def forward(self, obs: Obs, z: Tensor) -> Tensor:
        return self.features(obs)
