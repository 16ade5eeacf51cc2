"""Losses of categorical predictions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits: Tensor, codes: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return the unreduced cross-entropy in nats, summed over components: (*lead).

    Arguments: logits (*lead, sum(sizes)), codes (*lead, len(sizes)).
    """
    parts = zip(logits.flatten(0, -2).split(list(sizes), -1), codes.flatten(0, -2).unbind(-1), strict=True)
    losses = (F.cross_entropy(x, code, reduction="none") for x, code in parts)
    return reduce(torch.add, losses).view(codes.shape[:-1])
