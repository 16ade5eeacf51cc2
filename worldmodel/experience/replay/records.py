"""A sequence as one record of fixed size: how rollouts are laid out in memory and on disk."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodel.types import Rollout, Sequences

_LEAF = "obs/"  # before the names of a dict observation's leaves


def rehearsal(roll: Rollout) -> Rollout:
    """The rollout without what only its own update needs: what the world model learns from, and `logp`, which tells T;
    not the h, the values or the rewards of the day."""
    return Rollout(**{f.name: getattr(roll, f.name) for f in fields(Sequences)}, logp=roll.logp)


def records_of(roll: Rollout) -> NDArray[np.void]:
    """The rollout's `rehearsal` -> (B,) records."""
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
    """(B,) records -> a rollout in memory of its own."""
    leaves = {name: torch.from_numpy(records[name].copy()).to(device) for name in records.dtype.names}
    obs = {name.removeprefix(_LEAF): x for name, x in leaves.items() if name.startswith(_LEAF)}
    rest = {name: x for name, x in leaves.items() if not name.startswith(_LEAF)}
    return Rollout(**({"obs": obs} if obs else {}), **rest)


def _numpy(x: Tensor) -> NDArray[np.generic]:
    """numpy has no bfloat16."""
    return (x.float() if x.dtype == torch.bfloat16 else x).cpu().numpy()
