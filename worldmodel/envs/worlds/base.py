"""Base classes of the project's own worlds: N copies in one numpy operation, and a single copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from worldmodel.errors import check_range


class Worlds(gym.vector.VectorEnv):
    """N copies, stepped together, with NEXT_STEP autoreset; only the time limit ends an episode.

    A subclass implements `_advance`. Raises ValueError for a time limit below 1.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012
    render_mode = None

    def __init__(self, num_envs: int, obs_space: gym.Space, act_space: gym.Space, max_episode_steps: int):
        check_range("env.kwargs.max_episode_steps", max_episode_steps, "[1, inf)", whole=True)
        self.num_envs, self.limit = num_envs, max_episode_steps
        self.single_observation_space, self.single_action_space = obs_space, act_space
        self.observation_space = gym.vector.utils.batch_space(obs_space, num_envs)
        self.action_space = gym.vector.utils.batch_space(act_space, num_envs)
        self.generator = np.random.default_rng()

    def _advance(self, act: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Advance all copies by actions (N, ...): obs (N, ...), rew (N,), info.

        new: (N,) bool, copies that begin an episode instead.
        """
        raise NotImplementedError

    def reset(
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        if seed is not None:
            self.generator = np.random.default_rng(seed)
        self._steps, self._over = np.zeros(self.num_envs, dtype=np.int64), np.ones(self.num_envs, dtype=bool)
        obs, *_, info = self.step(np.zeros(self.action_space.shape, dtype=self.action_space.dtype))
        return obs, info

    def state(self) -> dict[str, Any]:
        """Return all variables that change from step to step, as plain data."""
        arrays = {k: v.copy() for k, v in vars(self).items() if k[0] == "_" and isinstance(v, np.ndarray)}
        return {"generator": self.generator.bit_generator.state, "arrays": arrays}

    def restore(self, state: dict[str, Any]) -> bool:
        """Restore a state; returns False for the state of another world."""
        own = {k: v for k, v in vars(self).items() if k in state["arrays"]}
        if len(own) < len(state["arrays"]) or any(v.shape != state["arrays"][k].shape for k, v in own.items()):
            return False
        self.generator.bit_generator.state = state["generator"]
        vars(self).update({k: v.copy() for k, v in state["arrays"].items()})
        return True

    def step(self, actions: np.ndarray) -> tuple[Any, ...]:
        new = self._over
        obs, rew, info = self._advance(actions, new)
        self._steps = np.where(new, 0, self._steps + 1)
        self._over = self._steps == self.limit
        return obs, np.where(new, 0.0, rew), np.zeros_like(new), self._over.copy(), info


class World(gym.Env):
    """One copy of `worlds`, which draws from `np_random`; gymnasium's own wrapper limits its time."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, worlds: Callable[..., Worlds], **kwargs: Any):
        self.many = worlds(num_envs=1, max_episode_steps=2**62, **kwargs)
        self.observation_space, self.action_space = self.many.single_observation_space, self.many.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.many.generator = self.np_random
        obs, info = self.many.reset()
        return obs[0], _only(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, rew, _, _, info = self.many.step(np.asarray(action)[None])
        return obs[0], float(rew[0]), False, False, _only(info)


def _only(info: dict[str, np.ndarray]) -> dict[str, Any]:
    return {k: v[0] for k, v in info.items()}
