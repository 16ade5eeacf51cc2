"""Running statistics that are equal on all ranks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldmodel.distributed import sum_over_ranks


class RunningMeanStd(nn.Module):
    """Running mean and variance per dimension over a stream of batches, equal on all ranks.

    Up to `horizon` samples every sample has the same weight (Chan et al. 1979). Beyond it the weight of old samples
    decays, so that the statistics follow features that drift. With `centred=False` the variance is the second moment
    about zero.
    """

    count: Tensor  # scalar, float64
    mean: Tensor  # shape
    var: Tensor  # shape

    def __init__(self, shape: tuple[int, ...] = (), *, centred: bool = True, horizon: float = 1e6, eps: float = 1e-4):
        super().__init__()
        self.centred, self.horizon, self.eps = centred, horizon, eps
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("var", torch.ones(shape))

    @torch.no_grad()
    def update(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Add the samples x (*lead, *shape) where mask (*lead) is True."""
        rows = x.reshape(-1, *self.mean.shape).double()
        if mask is not None:
            rows = rows[mask.reshape(-1)]
        n = sum_over_ranks(torch.tensor(float(len(rows)), dtype=torch.float64, device=rows.device))
        if n == 0:
            return
        mean = sum_over_ranks(rows.sum(0)) / n
        centre = mean if self.centred else torch.zeros_like(mean)
        var = sum_over_ranks((rows - centre).square().sum(0)) / n
        share = n / (self.count + n)
        shift = mean - self.mean.double()
        between = share * (1 - share) * shift.square() if self.centred else 0.0
        self.var.copy_((1 - share) * self.var.double() + share * var + between)
        if self.centred:
            self.mean.add_((share * shift).to(self.mean.dtype))
        self.count.copy_((self.count + n).clamp(max=self.horizon))

    @property
    def std(self) -> Tensor:
        """Standard deviation (or root mean square), at least eps."""
        return self.var.sqrt().clamp_min(self.eps)

    def forward(self, x: Tensor) -> Tensor:
        """Return x (*lead, *shape) minus the mean, in units of the standard deviation."""
        return (x - self.mean) / self.std
