"""What the rest of the code sees of an environment: N copies, stepped together, in tensors on the CPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from torch import Tensor

from worldmodel.types import Obs


@dataclass(slots=True)
class Step:
    """What N environments answered to one action each.

    With `end` or `trunc` comes the true terminal observation. The next step resets: its action is ignored,
    `obs` is the first of the new episode, `rew` is 0, `end` and `trunc` are False. The tensors belong to
    the caller: no engine writes to them again.
    """

    obs: Obs  # (N, *obs_shape): uint8 boxes stay uint8, other boxes are float32, discrete ones int64
    rew: Tensor  # (N,) float32
    end: Tensor  # (N,) bool: terminated
    trunc: Tensor  # (N,) bool: cut by a time limit
    ignored: Tensor  # (N,) bool: this step's action was ignored, because the environment reset
    info: dict[str, np.ndarray] = field(default_factory=dict)  # (N, ...) each, told beside obs; e.g. agent_pos (N, 2)
    fault: Tensor | None = None  # (N,) bool, None for nowhere: the copy broke and is a new one; `ignored`, too


class VectorEnv(Protocol):
    """N copies of an environment with NEXT_STEP autoreset."""

    num_envs: int
    obs_space: gym.Space  # of one copy: Box (uint8 or float32), Discrete, MultiDiscrete, or a Dict of those
    act_space: gym.Space  # of one copy: Discrete, MultiDiscrete or Box; discrete values begin at 0
    null_action: int | None  # the action that does nothing, where one is known
    resumable: bool  # state_dict() brings back each copy at no more cost than its own episode
    info: dict[str, np.ndarray]  # what was told beside the observations of the last reset(), as in Step

    def reset(self) -> Obs:
        """Begin new episodes everywhere; (N, *obs_shape). Only the first call uses the seed."""
        ...

    def step(self, act: Tensor) -> Step:
        """Take one action in each copy: (N,) or (N, k) int, or (N, *shape) float, clipped to its bounds."""
        ...

    def render(self) -> np.ndarray | None:
        """(H, W, 3) uint8 picture of copy 0, or None where there is none to be had."""
        ...

    def close(self) -> None: ...

    def record(self) -> None:
        """From now on remember all that `state_dict` needs, which grows with each step where the engine is not
        `resumable`. Comes before the first reset."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Plain data: the same actions give the same future. Empty where nothing was remembered."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> bool:
        """Go back to a saved state, in a new environment of the same seed. False where that fails; `reset` is next."""
        ...
