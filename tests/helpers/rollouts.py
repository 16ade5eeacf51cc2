"""Rollouts with only the fields that a test reads."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch

from worldmodel.types import Rollout, Sequences, first_leaf, map_obs


def hand_made(stage: type[Sequences] = Rollout, **given: Any) -> Any:
    """A rollout of the given fields; the others are zero.

    The first given field of rows (B, L+1, ...) sets the size. Unless `num_new` is given, all rows are new.
    """
    rows = [f.name for f in fields(Sequences) if f.name != "num_new"]
    shape = next(first_leaf(given[name]).shape[:2] for name in rows if name in given)
    num_new = given.setdefault("num_new", shape[1] - 1)
    lead, flags = shape[0], ("valid", "mask", "end", "trunc")
    filled = {name: torch.zeros(shape, dtype=torch.bool if name in flags else torch.float32) for name in rows}
    filled["episode"] = torch.zeros(shape, dtype=torch.long)
    if "sample" in {f.name for f in fields(stage)} and "act" in given:
        filled["sample"] = given["act"][:, -num_new - 1 : -1]
    for f in fields(stage):
        closing = f.name in ("value_ext", "value_int")
        filled.setdefault(f.name, torch.zeros(lead, num_new + closing))
    return stage(**filled | {"info": {}} | given)


def cut(roll: Rollout, start: int, stop: int) -> Rollout:
    """The transitions start to stop of a rollout without context, as a rollout of their own."""
    rows = {name: map_obs(lambda x: x[:, start : stop + 1], x) for name, x in roll.as_sequences().tensors().items()}
    return hand_made(**rows, logp=roll.logp[:, start:stop])
