"""The main encoder's latent, regularised towards an isotropic Gaussian."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from encoders import Encoder
from worldmodel.distributed import differentiable_sum
from worldmodel.errors import check_range
from worldmodel.model.targets.base import LEARNT, Target, touched
from worldmodel.types import Obs


class SIGReg(Target):
    """Sketched isotropic Gaussian regularisation (LeJEPA, Balestriero & LeCun 2025, arXiv 2511.08544).

    y = z with its gradient: the world model's prediction loss reaches the encoder through both ends of the delta. It is
    indifferent to the scale of y (see `without_scale`), which the regulariser alone sets: unit variance per dimension,
    on average over dimensions, and mean 0. Loss:
    `sigreg`, the mean over random directions a of the Epps-Pulley statistic of a.y,

        integral over [-t_max, t_max] of |phi_n(t) - exp(-t^2/2)|^2 exp(-t^2/2) dt

    with phi_n the empirical characteristic function over the rows of real transitions, on all ranks. The paper
    multiplies it by the number of rows. Here it does not grow with the batch: it is about 1.06/n for n Gaussian rows
    and 0.40 for a collapsed batch. It is multiplied by `weight`, whose default is about the paper's at 200 rows and
    lambda 0.05. Maps are flattened; otherwise the loss would accept a map that differs between
    positions but is constant over rows. Directions change at each `update`, and are the same on every rank and after a
    restart.
    """

    scale_horizon = LEARNT
    t: Tensor  # (knots - 1,)
    window: Tensor  # (knots - 1,)

    def __init__(
        self, encoder: Encoder, *, directions: int = 64, knots: int = 17, t_max: float = 3.0, weight: float = 10.0
    ):
        super().__init__()
        check_range("target.weight", weight, "[0, inf)")
        self.shape, self.directions, self.steps = encoder.shape, directions, 0
        t = torch.linspace(0, t_max, knots)[1:]  # both functions are 1 at 0
        window = 2 * t[0] * torch.exp(-t.square() / 2)  # trapezoids, on both sides of 0
        window[-1] /= 2
        self.weight = weight
        self.register_buffer("t", t, persistent=False)
        self.register_buffer("window", window, persistent=False)

    def forward(self, obs: Obs, z: Tensor) -> Tensor:
        return z

    def losses(self, obs: Obs, act: Tensor, z: Tensor, y: Tensor, mask: Tensor) -> dict[str, Tensor]:
        return {"sigreg": (self.weight * self.statistic(y, touched(mask))).expand(mask.shape)}

    def statistic(self, y: Tensor, valid: Tensor) -> Tensor:
        """Return the statistic of the valid rows of all ranks, unweighted: y (B, R, *shape), valid (B, R) -> scalar."""
        with torch.autocast(y.device.type, enabled=False):
            rows, real = rearrange(y.float(), "b r ... -> (b r) (...)"), valid.flatten().float()
            generator = torch.Generator().manual_seed(self.steps)
            a = torch.randn(rows.shape[1], self.directions, generator=generator).to(rows.device)
            x = (rows @ F.normalize(a, dim=0))[..., None] * self.t  # (rows, directions, knots)
            sums = torch.stack([torch.einsum("n,nak->ak", real, f(x)) for f in (torch.cos, torch.sin)])
            count = differentiable_sum(real.sum()).clamp_min(1.0)
            cos, sin = differentiable_sum(sums) / count
            gap = (cos - torch.exp(-self.t.square() / 2)).square() + sin.square()
            return (gap @ self.window).mean()

    def update(self) -> None:
        self.steps += 1

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.steps)

    def set_extra_state(self, state: Tensor) -> None:
        self.steps = int(state)
