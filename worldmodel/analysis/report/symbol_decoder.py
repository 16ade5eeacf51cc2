"""A linear decoder of latents into symbols, fitted on the frozen latent."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from worldmodel.analysis.probes.linear import Affine, ridge
from worldmodel.analysis.report.recorded import RecordedRollouts

STREAMS = 64  # environments whose rollouts are decoded
ROWS = 5000  # of the fit, at most


def decoder_of(rolls: RecordedRollouts, codes: Tensor, sizes: tuple[int, ...]) -> Affine:
    """Fit a decoder from latents to codes (N, T+1, cells, C) on the episodes of even number."""
    fit = (rolls.real & (rolls.number % 2 == 0)).flatten().nonzero().flatten()
    fit = fit[:: max(1, len(fit) // ROWS)]
    y = rolls.window.y[:, :-1].flatten(2)
    return fit_decoder(y.flatten(0, 1)[fit], codes[:, :-1].flatten(0, 1)[fit], sizes)


def fit_decoder(y: Tensor, codes: Tensor, sizes: tuple[int, ...]) -> Affine:
    """Fit an affine map from latents (M, D) to one-hot codes (M, cells, C), component by component."""
    hot = [F.one_hot(codes[..., c].long(), size).flatten(1) for c, size in enumerate(sizes)]
    return ridge(y, torch.cat(hot, 1).float())


def decode(decoder: Affine, y: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Decode latents (M, D) to codes (M, cells, C): the largest one-hot score of each component."""
    scores = decoder(y)
    cells = scores.shape[1] // sum(sizes)
    parts = scores.split([cells * size for size in sizes], 1)
    return torch.stack([x.unflatten(1, (cells, -1)).argmax(-1) for x in parts], -1)


def right(guess: Tensor, truth: Tensor) -> np.ndarray:
    """Share (M,) of cells of codes (M, cells, C) that agree in all components."""
    return (guess == truth).all(-1).double().mean(-1).cpu().numpy()
