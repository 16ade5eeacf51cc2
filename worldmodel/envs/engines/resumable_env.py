"""A single environment, checked at every step, whose state can be saved and restored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from worldmodel.envs.spaces import digest


class ResumableEnv:
    """Gymnasium environment with NEXT_STEP autoreset and a state of plain data.

    The state consists of the random generators' states at the beginning of the episode, or of the seed. `restore`
    repeats the actions since then, which the caller records, in a new environment. This restores an environment that
    draws only from `np_random` and from the `generator` of a wrapper or of the environment itself, and that keeps
    nothing else between episodes. `restore` returns whether it succeeded.

    Raises ValueError for observations of another shape than the space's, and for numbers that are not finite.
    """

    def __init__(self, make: Callable[[], gym.Env]):
        self.make = make
        self.env = make()
        self.over = False  # the next step begins a new episode
        self.start: dict[str, Any] = {}
        self.obs: Any = None

    def reset(self, seed: int | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        rng = None if seed is not None else [generator.bit_generator.state for generator in self._generators()]
        self.start, self.over = {"seed": seed, "rng": rng}, False
        return self._reset(seed)

    def step(self, action: np.ndarray, begin: bool = False) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one action; after an end, or with `begin`, it is ignored, and a new episode begins."""
        if self.over or begin:
            obs, info = self.reset()
            return obs, 0.0, False, False, info
        return self._step(action)

    def render(self) -> Any:
        return self.env.render()

    def close(self) -> None:
        self.env.close()

    def state(self) -> dict[str, Any]:
        """Return the state as plain data, without the actions of the episode."""
        return {**self.start, "digest": digest(self.obs)}

    def restore(self, state: dict[str, Any], actions: Sequence[Any]) -> bool:
        """Repeat an episode's actions up to a saved state; return True if the observation is equal to the saved one."""
        self.env.close()
        self.env = self.make()
        for generator, rng in zip(self._generators(), state["rng"] or (), strict=False):
            generator.bit_generator.state = rng
        self.start = {"seed": state["seed"], "rng": state["rng"]}
        self.over = False
        self._reset(state["seed"])
        for action in actions:
            self._step(action)
        return digest(self.obs) == state["digest"]

    def _generators(self) -> list[np.random.Generator]:
        """Return the random generators, outermost first."""
        layers, found = [self.env], [self.env.unwrapped.np_random]
        while isinstance(layers[-1], gym.Wrapper):
            layers.append(layers[-1].env)
        return [
            g for layer in layers if isinstance(g := getattr(layer, "generator", None), np.random.Generator)
        ] + found

    def _reset(self, seed: int | None) -> tuple[Any, dict[str, Any]]:
        self.obs, info = self.env.reset(seed=seed)
        _check(self.env.observation_space, self.obs)
        return self.obs, _numeric(info)

    def _step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.obs, rew, end, trunc, info = self.env.step(action)
        _check(self.env.observation_space, self.obs)
        if not np.isfinite(rew := float(rew)):
            raise ValueError(f"a reward of {rew}")
        self.over = bool(end or trunc)
        return self.obs, rew, bool(end), bool(trunc), _numeric(info)


def _check(space: gym.Space, obs: Any) -> None:
    if isinstance(space, gym.spaces.Dict):
        for key, part in space.items():
            _check(part, obs[key])
        return
    array = np.asarray(obs)
    if array.shape != space.shape:
        raise ValueError(f"an observation of shape {array.shape}, allowed is {space.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError("an observation that is not finite")


def _numeric(info: dict[str, Any]) -> dict[str, Any]:
    """Return the numeric entries, which can be sent from one process to another."""
    return {k: v for k, v in info.items() if isinstance(v, bool | int | float | np.generic | np.ndarray)}
