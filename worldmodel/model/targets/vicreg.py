"""The main encoder's latent, regularised by its variances and covariances."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from encoders import Encoder
from worldmodel.distributed import differentiable_sum
from worldmodel.errors import check_range
from worldmodel.model.targets.base import LEARNT, Target, touched
from worldmodel.types import Obs


class VICReg(Target):
    """Variance and covariance regularisation (Bardes et al. 2022); the prediction loss is the invariance term.

    y = z with its gradient: the world model's prediction loss reaches the encoder through both ends of the delta. It is
    indifferent to the scale of y (see `without_scale`), which `variance` alone sets: a standard deviation of 1 in each
    dimension. Two losses, over the rows of real transitions on all ranks: `variance`, the mean over dimensions of
    |1 - std|, and `covariance`, the sum of the squared off-diagonal correlations divided by the number of dimensions.
    Each is multiplied by the constructor's argument of its name; the defaults have the paper's ratio, 25 to 1. Maps are
    flattened.

    Two departures from the paper:
    - |1 - std| instead of max(0, 1 - std). The paper's prediction loss shrinks y; without it, y would grow.
    - Correlations instead of covariances, which shrink with y: latents of rank r in D dimensions with a standard
      deviation s would have the loss s^4 D/r.
    """

    scale_horizon = LEARNT

    def __init__(self, encoder: Encoder, *, variance: float = 5.0, covariance: float = 0.2):
        super().__init__()
        check_range("target.variance", variance, "[0, inf)")
        check_range("target.covariance", covariance, "[0, inf)")
        self.weights = {"variance": variance, "covariance": covariance}
        self.shape = encoder.shape

    def forward(self, obs: Obs, z: Tensor) -> Tensor:
        return z

    def losses(self, obs: Obs, act: Tensor, z: Tensor, y: Tensor, mask: Tensor) -> dict[str, Tensor]:
        terms = zip(self.weights.items(), self.terms(y, touched(mask)), strict=True)
        return {name: (weight * term).expand(mask.shape) for (name, weight), term in terms}

    def terms(self, y: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return both terms of the valid rows of all ranks, unweighted: y (B, R, *shape), valid (B, R) -> scalars."""
        with torch.autocast(y.device.type, enabled=False):
            rows, real = rearrange(y.float(), "b r ... -> (b r) (...)"), rearrange(valid.float(), "b r -> (b r) 1")
            count = differentiable_sum(real.sum())
            mean = differentiable_sum((rows * real).sum(0)) / count.clamp_min(1.0)
            centred = (rows - mean) * real
            cov = differentiable_sum(centred.T @ centred) / (count - 1).clamp_min(1.0)  # (D, D)
            std = torch.sqrt(cov.diagonal() + 1e-4)
            correlation = (cov / (std[:, None] * std)).square()
            return (1 - std).abs().mean(), (correlation.sum() - correlation.diagonal().sum()) / len(std)
