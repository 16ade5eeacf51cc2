"""Noisy TV: a source of unlearnable noise, in any environment (Burda et al. 2018, arXiv 1808.04355)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from worldmodel.envs.vector import Step, VectorEnv
from worldmodel.envs.wrappers.base import Wrapper
from worldmodel.envs.wrappers.screen import Screen
from worldmodel.types import Obs

Kind = Literal["clean", "iid", "brownian", "action", "sham"]


class TV(Wrapper):
    """Wrapper that shows noise on a part of the view (`size` of its height and width).

    In a dict observation the noise is on the views only, if there are any.

    kind:
        iid       new random values at every step
        brownian  a fixed random patch that moves by one step or none along each axis, within the view
        action    new random values in the observation after the TV's action, and only there
        sham      the TV's action has its original effect or none, and no noise is shown: the control of `action`
    action: the TV's action, for kinds that have one. `added` is an additional action, during which the environment
        takes its null action; `noop` is the null action; an index is an existing action, which keeps its effect.
    values: number of values of each channel of a symbolic grid, see `Screen`.

    `info`, of each transition: tv_on (N,) bool, the observation shows noise; tv_act (N,) bool, the TV's action was
    taken (False if it was ignored).

    Raises ValueError for actions and sizes that the environment does not allow.
    """

    def __init__(
        self,
        env: VectorEnv,
        kind: Kind,
        action: int | Literal["added", "noop"] = "added",
        size: float = 1.0,
        values: Sequence[int] | None = None,
        seed: int = 0,
    ):
        super().__init__(env)
        self.kind = kind
        self.screens = _screens(env.obs_space, size, values)
        self._generator = np.random.default_rng(seed)
        self.button: int | None = None
        if kind in ("action", "sham"):
            self.button = self._install(action)
        if kind == "brownian":
            if not all(screen.is_view and screen.part < screen.whole for screen in self.screens.values()):
                raise ValueError(f"env.tv=brownian env.tv_size={size}: allowed are views with room to move in")
            self._patches = {k: s.draw(self._generator, self.num_envs) for k, s in self.screens.items()}
            self._corners = {
                k: self._generator.integers(np.subtract(s.whole, s.part) + 1, size=(self.num_envs, len(s.whole)))
                for k, s in self.screens.items()
            }

    def _install(self, action: int | str) -> int:
        space = self.act_space
        if not isinstance(space, gym.spaces.Discrete):
            raise ValueError(f"env.tv={self.kind}: allowed for the action space {space} are clean, iid and brownian")
        if action in ("added", "noop"):
            if self.null_action is None:
                raise ValueError(f"env.tv_action={action}: needs env.null_action, allowed without are 0..{space.n - 1}")
            if action == "noop":
                return self.null_action
            self.act_space = gym.spaces.Discrete(space.n + 1)
            return int(space.n)
        if not isinstance(action, int) or not 0 <= action < space.n:
            raise ValueError(f"env.tv_action={action}: allowed are added, noop and 0..{space.n - 1}")
        return action

    def reset(self) -> Obs:
        obs = super().reset()
        none = np.zeros(self.num_envs, dtype=bool)
        self.info = self.info | self._broadcast(obs, none)
        return obs

    def step(self, act: Tensor) -> Step:
        """Take one action in each copy, (N, *act_shape); an added one is the null action of the wrapped environment."""
        pressed = torch.zeros(self.num_envs, dtype=torch.bool)
        if self.button is not None:
            act = act.detach().cpu()
            pressed = act == self.button
            if self.button == self.env.act_space.n:
                act = torch.where(pressed, self.null_action, act)
        step = self.env.step(act)
        step.info = step.info | self._broadcast(step.obs, (pressed & ~step.ignored).numpy())
        return step

    def _broadcast(self, obs: Obs, pressed: np.ndarray) -> dict[str, np.ndarray]:
        """Write the noise over the observation, in place, and return the flags."""
        leaves = obs if isinstance(obs, dict) else {"": obs}
        if self.kind == "brownian":
            for key, screen in self.screens.items():
                corners, room = self._corners[key], np.subtract(screen.whole, screen.part)
                corners += self._generator.integers(-1, 1, size=corners.shape, endpoint=True)
                np.clip(corners, 0, room, out=corners)
                screen.show_at(leaves[key], corners, self._patches[key])
        on = np.full(self.num_envs, self.kind in ("iid", "brownian"))
        if self.kind == "action":
            on = pressed
        if self.kind in ("iid", "action") and on.any():
            rows = torch.from_numpy(np.flatnonzero(on))
            for key, screen in self.screens.items():
                screen.show(leaves[key], rows, screen.draw(self._generator, len(rows)))
        return {"tv_on": on, "tv_act": pressed}

    def state_dict(self) -> dict[str, Any]:
        own: dict[str, Any] = {"generator": self._generator.bit_generator.state}
        if self.kind == "brownian":
            corners = {k: torch.from_numpy(v.copy()) for k, v in self._corners.items()}
            own |= {"patches": self._patches, "corners": corners}
        return own | super().state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> bool:
        self._generator.bit_generator.state = state["generator"]
        if self.kind == "brownian":
            self._patches = state["patches"]
            self._corners = {k: v.numpy().copy() for k, v in state["corners"].items()}
        return super().load_state_dict(state)


def _screens(space: gym.Space, size: float, values: Sequence[int] | None) -> dict[str, Screen]:
    """Return the screens by key, or by "" for a plain observation."""
    leaves = dict(space.items()) if isinstance(space, gym.spaces.Dict) else {"": space}
    views = {k: s for k, s in leaves.items() if len(s.shape) in (2, 3)}
    return {k: Screen(s, size, values if views else None) for k, s in (views or leaves).items()}
