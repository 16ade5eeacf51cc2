"""A sequence as one record of fixed size: the layout of sequences in memory and on disk."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodel.types import Sequences

_LEAF = "obs/"  # prefix of the names of a dict observation's leaves


def records_of(seq: Sequences) -> NDArray[np.void]:
    """Convert the fields of B `Sequences` to records (B,)."""
    leaves: dict[str, Tensor] = {}
    for name, value in seq.as_sequences().tensors().items():
        leaves |= {_LEAF + key: x for key, x in value.items()} if isinstance(value, dict) else {name: value}
    arrays = {name: _numpy(x) for name, x in leaves.items()}
    found = np.empty(len(seq), dtype=[(name, x.dtype, x.shape[1:]) for name, x in arrays.items()])
    for name, x in arrays.items():
        found[name] = x
    return found


def sequences_of(records: NDArray[np.void], num_new: int, device: torch.device) -> Sequences:
    """Copy records (B,) to sequences with `num_new` new steps."""
    leaves = {name: torch.from_numpy(records[name].copy()).to(device) for name in records.dtype.names or ()}
    obs = {name.removeprefix(_LEAF): x for name, x in leaves.items() if name.startswith(_LEAF)}
    fields: dict[str, Any] = {name: x for name, x in leaves.items() if not name.startswith(_LEAF)}
    if obs:
        fields["obs"] = obs
    return Sequences(**fields, num_new=num_new)


def _numpy(x: Tensor) -> NDArray[np.generic]:
    """Convert a tensor to numpy, which has no bfloat16."""
    return (x.float() if x.dtype == torch.bfloat16 else x).cpu().numpy()
