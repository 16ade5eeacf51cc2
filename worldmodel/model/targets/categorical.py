"""Losses of categorical predictions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from encoders import CodeEncoder, Encoder


def cross_entropy(logits: Tensor, codes: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return the unreduced cross-entropy in nats, summed over components: (*lead).

    Arguments: logits (*lead, sum(sizes)), codes (*lead, len(sizes)).
    """
    parts = zip(logits.flatten(0, -2).split(list(sizes), -1), codes.flatten(0, -2).unbind(-1), strict=True)
    losses = (F.cross_entropy(x, code, reduction="none") for x, code in parts)
    return reduce(torch.add, losses).view(codes.shape[:-1])


def code_encoder(encoder: Encoder, setting: str) -> CodeEncoder:
    """Return an encoder that has codes.

    Raises:
        ValueError: for encoders without codes; the message starts with the `setting` that needs them.
    """
    if not hasattr(encoder, "num_values") or not hasattr(encoder, "codes"):
        name = type(encoder).__name__
        raise ValueError(f"{setting} with encoder={name}: allowed are encoders of codes (discrete, grid)")
    return cast(CodeEncoder, encoder)
