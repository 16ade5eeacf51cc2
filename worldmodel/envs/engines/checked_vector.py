"""Check of the batches that a vector environment returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from worldmodel.envs.output_check import FaultyEnvironment, InvalidOutput, OutputCheck, array_check


class CheckedVector(gym.vector.VectorWrapper):
    """Vector environment whose batches are checked at each step, like those of single copies.

    Its copies cannot be replaced one by one. So the first invalid value ends the run: raises FaultyEnvironment.
    """

    def __init__(self, env: gym.vector.VectorEnv, id: str):
        super().__init__(env)
        self.id = id
        self.obs = OutputCheck(gym.vector.utils.batch_space(env.single_observation_space, env.num_envs)).obs
        shape = (env.num_envs,)
        self.rew = array_check("reward", shape, np.dtype(np.float64))
        self.flags = [array_check(name, shape, np.dtype(np.bool_)) for name in ("terminated", "truncated")]

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(**kwargs)
        return self._checked(lambda: (self.obs(obs), info))

    def step(self, actions: np.ndarray) -> tuple[Any, ...]:
        obs, rew, end, trunc, info = self.env.step(actions)
        return self._checked(lambda: (self.obs(obs), self.rew(rew), self.flags[0](end), self.flags[1](trunc), info))

    def __getattr__(self, name: str) -> Any:
        if name in ("state", "restore"):  # of an environment that has them
            return getattr(self.env, name)
        raise AttributeError(name)

    def _checked(self, check: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
        try:
            return check()
        except InvalidOutput as error:
            raise FaultyEnvironment(f"env.id={self.id}: {error}") from error
