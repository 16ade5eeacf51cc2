"""Conversion of SAME_STEP autoreset to NEXT_STEP autoreset."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from worldmodel.envs.flat import one_line


class NextStep(gym.vector.VectorWrapper):
    """NEXT_STEP autoreset for a vector environment that resets within the step that ends an episode.

    At the end of an episode the wrapper emits `info["final_obs"]`, the true terminal observation. The environment has
    already reset. The action of the next step is ignored and replaced by a null action (`null_action`, else 0, else the
    value nearest to 0), and its result is emitted. So the first observation of such an episode is the one AFTER A NULL
    ACTION, and `Adapter` drops the reward of that action. If the null action ends the episode, the next episode begins
    in its place.
    """

    def __init__(self, env: gym.vector.VectorEnv, null_action: int | None = None):
        super().__init__(env)
        self.metadata = {**env.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}
        space = env.single_action_space
        if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
            raise ValueError(
                f"action space {one_line(space)} with vector_entry_point: allowed env.vectorization is sync"
            )
        if isinstance(space, gym.spaces.Box):
            self._null = np.clip(np.zeros(space.shape), space.low, space.high).astype(space.dtype)
        else:
            self._null = getattr(space, "start", 0) + np.full(space.shape, null_action or 0, dtype=space.dtype)
        self._over = np.zeros(env.num_envs, dtype=bool)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        self._over = np.zeros_like(self._over)
        return self.env.reset(**kwargs)

    def step(self, actions: np.ndarray) -> tuple[Any, ...]:
        ignored = self._over
        actions = np.where(ignored.reshape(-1, *[1] * (actions.ndim - 1)), self._null, actions)
        obs, rew, end, trunc, info = self.env.step(actions.astype(self.env.single_action_space.dtype))
        self._over = shown = (end | trunc) & ~ignored
        if shown.any():
            if "final_obs" not in info:
                raise ValueError(f"{self.env} resets in the same step but gives no info['final_obs']")
            obs, info = _overlay(obs, info, shown)
        return obs, rew, end & ~ignored, trunc & ~ignored, info


def _overlay(obs: Any, info: dict[str, Any], rows: np.ndarray) -> tuple[Any, dict[str, Any]]:
    """Replace the observations and infos of `rows`, which have just begun, by those of the final step."""
    final, final_info = info["final_obs"], info.get("final_info", {})
    info = {
        k: _put(v, final_info[k], rows) if isinstance(v, np.ndarray) and k in final_info else v
        for k, v in info.items()
        if k not in ("final_obs", "final_info")
    }
    if isinstance(obs, dict):
        # gymnasium gives an array with one dict per copy that ended; other engines may give a dict of arrays
        leaf = final if isinstance(final, dict) else {k: [f and f[k] for f in final] for k in obs}
        return {k: _put(v, leaf[k], rows) if isinstance(v, np.ndarray) else v for k, v in obs.items()}, info
    return _put(obs, final, rows), info


def _put(value: np.ndarray, source: Any, rows: np.ndarray) -> np.ndarray:
    value = value.copy()
    for i in np.flatnonzero(rows):
        value[i] = source[i]
    return value
