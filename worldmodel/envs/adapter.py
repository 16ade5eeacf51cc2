"""Adapter of Gymnasium vector environments with NEXT_STEP autoreset to `VectorEnv`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode
from torch import Tensor

from worldmodel.envs.info_entries import InfoEntries
from worldmodel.envs.spaces import Translation, digest
from worldmodel.envs.vector import FAULT, Step
from worldmodel.errors import check_range
from worldmodel.types import Obs


class Adapter:
    """Gymnasium vector environment with the interface of `VectorEnv`.

    It returns tensors instead of arrays and marks `ignored` steps.

    seed: given to the engine's first reset; None if the engine is already seeded.
    copy: copy the engine's arrays, which it reuses.
    requested: entries of info that are needed, see `InfoEntries`.

    An engine that cannot save its state is restored by repeating all actions since its creation, if `record` was
    called. This is exact if the engine draws from its seed alone. It stores a byte or more per step, and takes as long
    as the run.

    Raises ValueError for another autoreset mode.
    """

    resumable = False

    def __init__(
        self,
        venv: gym.vector.VectorEnv,
        keys: Sequence[str] | None = None,
        null_action: int | None = None,
        seed: list[int] | None = None,
        copy: bool = True,
        requested: Mapping[str, str] | None = None,
    ):
        if (mode := venv.metadata.get("autoreset_mode")) != AutoresetMode.NEXT_STEP:
            raise ValueError(f"autoreset_mode={mode}: allowed are {AutoresetMode.NEXT_STEP} and SAME_STEP")
        self.venv, self.num_envs = venv, venv.num_envs
        raw_act_space = getattr(venv, "raw_action_space", venv.single_action_space)
        self._flat = raw_act_space is not venv.single_action_space
        self.translation = Translation(venv.single_observation_space, raw_act_space, keys, copy)
        self.obs_space, self.act_space = self.translation.obs_space, self.translation.act_space
        self.null_action = _check_null(null_action, self.act_space)
        self._seed, self._own = seed, partial(np.array, copy=copy or None)
        self._over = torch.zeros(self.num_envs, dtype=torch.bool)
        self.info: dict[str, np.ndarray] = {}
        self._entries = InfoEntries(requested)
        self._past: list[np.ndarray] | None = None  # all actions, if recorded; (N, *act_shape) each
        self._begun, self._digest = False, ""

    def record(self) -> None:
        """See `VectorEnv.record`. Raises RuntimeError after the first `reset`."""
        if self._begun:
            raise RuntimeError("record() must be called before the first reset()")
        self._past = []

    def reset(self) -> Obs:
        """Begin new episodes in all copies: (N, *obs_shape)."""
        if self._begun:
            self._past = None  # the actions do not show a second reset
        self._begun = True
        seed, self._seed = self._seed, None
        obs, info = self.venv.reset() if seed is None else self.venv.reset(seed=seed)
        self.info = self._info(info)
        self._over = torch.zeros_like(self._over)
        return self._observe(obs)

    def step(self, act: Tensor) -> Step:
        """Take one action in each copy, (N, *act_shape)."""
        actions = self.translation.write(act, self.num_envs, flat=self._flat)
        if self._past is not None:
            past = act.detach().cpu().numpy()
            self._past.append(past if past.dtype.kind == "f" else past.astype(np.min_scalar_type(past.max())))
        obs, rew, end, trunc, info = self.venv.step(actions)
        fault = info.pop(FAULT, None)
        rew = torch.from_numpy(self._own(rew, np.float32))
        end, trunc = (torch.from_numpy(self._own(x, np.bool_)) for x in (end, trunc))
        ignored, self._over = self._over, end | trunc
        if fault is not None:
            fault = torch.from_numpy(fault)
            ignored = ignored | fault
        return Step(self._observe(obs), rew.masked_fill_(ignored, 0.0), end, trunc, ignored, self._info(info), fault)

    def render(self) -> np.ndarray | None:
        """Return a (H, W, 3) uint8 picture of copy 0, or None if the environment was created without rendering."""
        return None if self.venv.render_mode is None else np.asarray(self.venv.render()[0])

    def close(self) -> None:
        self.venv.close()

    def state_dict(self) -> dict[str, Any]:
        if self._past is None:
            return {}
        past = torch.from_numpy(np.stack(self._past)) if self._past else None
        return {"past": past, "digest": self._digest}

    def load_state_dict(self, state: dict[str, Any]) -> bool:
        """Repeat the recorded actions, in a new environment of the same seed. Returns False if that fails."""
        if not state or self._past is None or len(self._past):
            return False
        if not self._begun:
            self.reset()
        for act in () if state["past"] is None else state["past"]:
            self.step(act)
        return self._digest == state["digest"]

    def _observe(self, raw: Any) -> Obs:
        obs = self.translation.read(raw)
        if self._past is not None:
            self._digest = digest(obs)  # computed now, because wrappers overwrite the observation
        return obs

    def _info(self, info: dict[str, Any]) -> dict[str, np.ndarray]:
        """Return the numeric entries that every copy has set (gymnasium marks in `_x` which copies set `x`)."""
        shared = {k: v for k, v in info.items() if k[:1] != "_" and np.all(info.get(f"_{k}", True))}
        numbers = {k: v for k, v in shared.items() if isinstance(v, np.ndarray) and v.dtype.kind in "biuf"}
        return {k: self._own(v) for k, v in self._entries.select(numbers).items()}


def _check_null(null_action: int | None, space: gym.Space) -> int | None:
    if null_action is None:
        return None
    if isinstance(space, Box):
        raise ValueError(f"env.null_action={null_action}: allowed is null for the action space {space}")
    size = int(np.min(space.nvec if isinstance(space, gym.spaces.MultiDiscrete) else space.n))
    check_range("env.null_action", null_action, f"[0, {size - 1}]", whole=True, null=True)
    return null_action
