"""Environments that fail in every known way: detection, time to replacement, and false continuations."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

from worldmodel.envs import make_env
from worldmodel.envs.engines.fault_tolerant_vector import FIRST_STEPS
from worldmodel.measure.reliability.breaking import KINDS, Breaking

TIMEOUT = 0.5  # seconds without an answer
_AFTER = FIRST_STEPS + 5  # steps between two faults; earlier ones in all copies would be an error of the code


def faults(folder: Path, scale: float) -> dict[str, Any]:
    """Ten faults of each kind, in an environment of two processes, both of which fail."""
    if "Breaking-v0" not in gym.registry:
        gym.register("Breaking-v0", entry_point=Breaking)
    found = {}
    for kind in KINDS:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            found[kind] = _inject(kind, wanted=max(round(10 * scale), 2))
    return found


def _inject(kind: str, wanted: int) -> dict[str, Any]:
    length = _AFTER if kind == "raise_in_reset" else 10**6
    env = make_env(
        "Breaking-v0", num_envs=2, vectorization="async", timeout=TIMEOUT, max_faults=10**6,
        kind=kind, after=_AFTER, length=length,
    )  # fmt: skip
    name = env.reset()[:, 0]
    injected = detected = continued = steps = 0
    seconds = []
    while injected < wanted:
        began = time.monotonic()
        step = env.step(torch.zeros(2, dtype=torch.long))
        steps += 1
        # a new copy counts from 0; failing resets come after the last step of an episode
        injected += 0 if steps % (_AFTER + (kind == "raise_in_reset")) else 2
        if step.fault is not None:
            seconds.append(time.monotonic() - began)
            detected += int(step.fault.sum())
            # the new episode has another number, and nothing is carried over
            same = (step.obs[:, 0] == name) | (step.obs[:, 1] != 0) | (step.rew != 0) | step.end | ~step.ignored
            continued += int((same & step.fault).sum())
        name = step.obs[:, 0]
    env.close()
    return {
        "injected": injected,
        "detected_and_replaced": detected,
        "false_continuations": continued,
        "seconds_to_replacement": {"mean": round(sum(seconds) / len(seconds), 4), "max": round(max(seconds), 4)},
    }
