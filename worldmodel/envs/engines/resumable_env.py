"""A single environment, checked at every step, whose state can be saved and restored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from worldmodel.envs.info_entries import InfoEntries
from worldmodel.envs.output_check import OutputCheck
from worldmodel.envs.spaces import digest


class ResumableEnv:
    """Gymnasium environment with NEXT_STEP autoreset and a state of plain data.

    The state consists of the random generators' states at the beginning of the episode, or of the seed. `restore`
    repeats the actions since then, which the caller records, in a new environment. This restores an environment that
    draws only from `np_random` and from the `generator` of a wrapper or of the environment itself, and that keeps
    nothing else between episodes. `restore` returns whether it succeeded.

    requested: entries of info that are needed, see `InfoEntries`.

    Raises InvalidOutput for what `OutputCheck` does not allow.
    """

    def __init__(self, make: Callable[[], gym.Env], requested: Mapping[str, str] | None = None):
        self.make = make
        self.env = make()
        self.check, self.entries = OutputCheck(self.env.observation_space), InfoEntries(requested)
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
        self.obs, info = self.check.reset(self.env.reset(seed=seed))
        return self.obs, self.entries.of_copy(info)

    def _step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.obs, rew, end, trunc, info = self.check.step(self.env.step(action))
        self.over = end or trunc
        return self.obs, rew, end, trunc, self.entries.of_copy(info)
