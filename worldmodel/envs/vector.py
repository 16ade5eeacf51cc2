"""Interface of vector environments: N copies, stepped together, in tensors on the CPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from torch import Tensor

from worldmodel.envs.spaces import Translation
from worldmodel.types import Obs

FAULT = "worldmodel.fault"
"""Key by which an engine's info marks the copies that it has replaced; no environment has it."""


@dataclass(slots=True)
class Step:
    """Result of one action in each of N environments.

    With `end` or `trunc`, `obs` is the true terminal observation. The next step resets: its action is ignored, `obs` is
    the first observation of the new episode, `rew` is 0, `end` and `trunc` are False. The tensors belong to the caller:
    no engine overwrites them.
    """

    obs: Obs  # (N, *obs_shape): uint8 boxes stay uint8, other boxes are float32, discrete ones int64
    rew: Tensor  # (N,) float32
    end: Tensor  # (N,) bool: terminated
    trunc: Tensor  # (N,) bool: cut by a time limit
    ignored: Tensor  # (N,) bool: this step's action was ignored, because the environment reset
    info: dict[str, np.ndarray] = field(default_factory=dict)  # (N, ...) each, aligned with obs; e.g. agent_pos (N, 2)
    fault: Tensor | None = None  # (N,) bool: the copy failed and was replaced, also in `ignored`; None: no copy


class VectorEnv(Protocol):
    """N copies of an environment with NEXT_STEP autoreset."""

    num_envs: int
    obs_space: gym.Space  # of one copy: Box (uint8 or float32), Discrete, MultiDiscrete, or a Dict of those
    act_space: gym.Space  # of one copy: Discrete, MultiDiscrete or UnitBox; discrete values begin at 0
    translation: Translation  # of the observations and actions of the environment within all wrappers
    null_action: int | None  # the action that does nothing, if there is one
    time_limit: int | None  # steps after which the environment itself truncates an episode, if that is known
    resumable: bool  # restoring a state_dict() costs at most one episode per copy
    info: dict[str, np.ndarray]  # of the observations of the last reset(), as in Step

    def reset(self) -> Obs:
        """Begin new episodes in all copies: (N, *obs_shape). Only the first call uses the seed."""
        ...

    def step(self, act: Tensor) -> Step:
        """Take one action in each copy: (N,) or (N, k) int, or (N, *shape) float in unit space, see `UnitBox`."""
        ...

    def limit_episodes(self, steps: int) -> None:
        """Truncate episodes after `steps` steps, where the engine can begin an episode of one copy alone."""
        ...

    def render(self) -> np.ndarray | None:
        """Return a (H, W, 3) uint8 picture of copy 0, or None if rendering is not available."""
        ...

    def close(self) -> None: ...

    def record(self, path: Path | None = None, limit: int | None = None) -> None:
        """Record from now on what `state_dict` needs; must be called before the first reset.

        Args:
            path: file of the actions; None: they are in memory and in the state.
            limit: steps over all copies that a restored state may repeat; None: by the kind of engine. Where one copy
                can begin an episode alone, the limit truncates its episode; see also `is_spent`.
        """
        ...

    def is_spent(self, steps: int) -> bool:
        """Return True if `steps` further steps of each copy would make the record longer than its limit.

        The environment must then be replaced by a new one. Always False for `resumable` engines.
        """
        ...

    def flush(self) -> None:
        """Append the actions since the last call to their file."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data: the same actions give the same future. Empty if nothing was recorded."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> bool:
        """Restore a saved state, in a new environment of the same seed. If it returns False, call `reset` next."""
        ...
