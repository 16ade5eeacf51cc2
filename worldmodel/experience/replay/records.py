"""Sequences as records of fixed size, the layout of rollouts in memory and on disk."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodel.types import Rollout, Sequences

_LEAF = "obs/"  # prefix of the names of a dict observation's leaves


def rehearsal(roll: Rollout) -> Rollout:
    """Return the fields of a rollout that the world model learns from, and `logp`, whose shape gives T.

    Fields that only the rollout's own update needs (h, values, rewards) are dropped.
    """
    return Rollout(**{f.name: getattr(roll, f.name) for f in fields(Sequences)}, logp=roll.logp)


def records_of(roll: Rollout) -> NDArray[np.void]:
    """Convert the `rehearsal` of a rollout to (B,) records."""
    leaves: dict[str, Tensor] = {}
    for name, value in vars(rehearsal(roll)).items():
        if value is None:
            continue
        leaves |= {_LEAF + key: x for key, x in value.items()} if isinstance(value, dict) else {name: value}
    arrays = {name: _numpy(x) for name, x in leaves.items()}
    found = np.empty(len(roll), dtype=[(name, x.dtype, x.shape[1:]) for name, x in arrays.items()])
    for name, x in arrays.items():
        found[name] = x
    return found


def rollout_of(records: NDArray[np.void], device: torch.device) -> Rollout:
    """Convert (B,) records to a rollout, in newly allocated memory."""
    leaves = {name: torch.from_numpy(records[name].copy()).to(device) for name in records.dtype.names}
    obs = {name.removeprefix(_LEAF): x for name, x in leaves.items() if name.startswith(_LEAF)}
    rest = {name: x for name, x in leaves.items() if not name.startswith(_LEAF)}
    return Rollout(**({"obs": obs} if obs else {}), **rest)


def _numpy(x: Tensor) -> NDArray[np.generic]:
    """Convert a tensor to numpy, which has no bfloat16."""
    return (x.float() if x.dtype == torch.bfloat16 else x).cpu().numpy()
