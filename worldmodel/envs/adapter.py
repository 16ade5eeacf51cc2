"""Adapter of Gymnasium vector environments with NEXT_STEP autoreset to `VectorEnv`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode
from torch import Tensor

from worldmodel.envs.action_log import ActionLog
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
    called. This is exact if the engine draws from its seed alone. `is_spent` limits the number of these steps.

    repeat_limit: steps over all copies that the engine repeats in 20 s or less on one core.

    Raises ValueError for another autoreset mode.
    """

    resumable = False
    repeat_limit = 100_000

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
        self.time_limit: int | None = getattr(venv.spec, "max_episode_steps", None)
        self._seed, self._own = seed, partial(np.array, copy=copy or None)
        self._over = torch.zeros(self.num_envs, dtype=torch.bool)
        self.info: dict[str, np.ndarray] = {}
        self._entries = InfoEntries(requested)
        self._log: ActionLog | None = None  # of all actions, if they are recorded
        self._begun, self._digest = False, ""

    def record(self, path: Path | None = None, limit: int | None = None) -> None:
        """See `VectorEnv.record`. Raises RuntimeError after the first `reset`."""
        if self._begun:
            raise RuntimeError("record() must be called before the first reset()")
        self._log = ActionLog(self.act_space, self.num_envs, path)
        self.repeat_limit = self.repeat_limit if limit is None else limit

    def is_spent(self, steps: int) -> bool:
        """See `VectorEnv.is_spent`."""
        return bool(self._log) and (len(self._log) + steps) * self.num_envs > self.repeat_limit

    def flush(self) -> None:
        """See `VectorEnv.flush`."""
        if self._log is not None:
            self._log.flush()

    def reset(self) -> Obs:
        """Begin new episodes in all copies: (N, *obs_shape)."""
        if self._begun:
            self._log = None  # the actions do not show a second reset
        self._begun = True
        seed, self._seed = self._seed, None
        obs, info = self.venv.reset() if seed is None else self.venv.reset(seed=seed)
        self.info = self._info(info)
        self._over = torch.zeros_like(self._over)
        return self._observe(obs)

    def step(self, act: Tensor) -> Step:
        """Take one action in each copy, (N, *act_shape)."""
        actions = self.translation.write(act, self.num_envs, flat=self._flat)
        if self._log is not None:
            self._log.append(act)
        obs, rew, end, trunc, info = self.venv.step(actions)
        fault = info.pop(FAULT, None)
        rew = torch.from_numpy(self._own(rew, np.float32))
        end, trunc = (torch.from_numpy(self._own(x, np.bool_)) for x in (end, trunc))
        ignored, self._over = self._over, end | trunc
        if fault is not None:
            fault = torch.from_numpy(fault)
            ignored = ignored | fault
        return Step(self._observe(obs), rew.masked_fill_(ignored, 0.0), end, trunc, ignored, self._info(info), fault)

    def limit_episodes(self, steps: int) -> None:
        """See `VectorEnv.limit_episodes`; not possible for engines that reset all copies together."""

    def render(self) -> np.ndarray | None:
        """Return a (H, W, 3) uint8 picture of copy 0, or None if the environment was created without rendering."""
        return None if self.venv.render_mode is None else np.asarray(self.venv.render()[0])

    def close(self) -> None:
        self.venv.close()

    def state_dict(self) -> dict[str, Any]:
        return {} if self._log is None else {"log": self._log.state_dict(), "digest": self._digest}

    def load_state_dict(self, state: dict[str, Any]) -> bool:
        """Repeat the recorded actions, in a new environment of the same seed. Returns False if that fails."""
        log = self._log
        if not state or log is None or len(log) or not log.load_state_dict(state["log"]):
            return False
        if not self._begun:
            self.reset()
        obs = None
        for act in log.last(len(log)):
            obs, _, end, trunc, _ = self.venv.step(self.translation.write(act, self.num_envs, flat=self._flat))
        if obs is not None:
            self._over = torch.from_numpy(np.array(end, np.bool_) | np.array(trunc, np.bool_))
            self._observe(obs)
        return self._digest == state["digest"]

    def _observe(self, raw: Any) -> Obs:
        obs = self.translation.read(raw)
        if self._log is not None and not self.resumable:
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
