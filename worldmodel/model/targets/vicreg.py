"""The main encoder's latent, regularised by its variances and covariances."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from encoders import Encoder
from worldmodel.distributed import differentiable_sum
from worldmodel.model.targets.base import Target, touched
from worldmodel.types import Obs


class VICReg(Target):
    """Variance and covariance regularisation (Bardes et al. 2022); the prediction loss is the invariance term.

    y = z with its gradient: the world model's prediction loss reaches the encoder through both ends of the delta. Two
    losses, over the rows of real transitions on all ranks: `variance`, the mean over dimensions of max(0, 1 - std), and
    `covariance`, the sum of the squared off-diagonal covariances divided by the number of dimensions. Maps are
    flattened.
    """

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.shape = encoder.shape

    def forward(self, obs: Obs, z: Tensor) -> Tensor:
        return z

    def losses(self, obs: Obs, act: Tensor, z: Tensor, y: Tensor, mask: Tensor) -> dict[str, Tensor]:
        variance, covariance = self.terms(y, touched(mask))
        return {"variance": variance.expand(mask.shape), "covariance": covariance.expand(mask.shape)}

    def terms(self, y: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return both terms, scalars, over the valid rows of all ranks: y (B, R, *shape), valid (B, R)."""
        with torch.autocast(y.device.type, enabled=False):
            rows, real = rearrange(y.float(), "b r ... -> (b r) (...)"), rearrange(valid.float(), "b r -> (b r) 1")
            count = differentiable_sum(real.sum())
            mean = differentiable_sum((rows * real).sum(0)) / count.clamp_min(1.0)
            centred = (rows - mean) * real
            cov = differentiable_sum(centred.T @ centred) / (count - 1).clamp_min(1.0)  # (D, D)
            var = cov.diagonal()
            variance = F.relu(1 - torch.sqrt(var + 1e-4)).mean()
            return variance, (cov.square().sum() - var.square().sum()) / len(var)
