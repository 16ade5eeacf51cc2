"""MiniGrid's Memory with a random initial direction."""

from __future__ import annotations

import warnings
from typing import Any

from gymnasium.spaces import Dict
from minigrid.envs.memory import MemoryEnv


class MemoryFacingAnywhere(MemoryEnv):
    """MiniGrid-Memory (Chevalier-Boisvert et al. 2023) with a uniformly random initial direction.

    In the original the agent starts with its back to the object to be remembered. Here one episode in four shows the
    object at the start, and the original's starts are another fourth. So a memory can be learned before the agent has
    found that turning round is rewarded (starts nearer to the solution first: Florensa et al. 2017, arXiv 1707.05300).

    The observation lacks MiniGrid's text, which never changes.

    size: as in MiniGrid's ids, MemoryS11 has 11.
    """

    def __init__(self, size: int = 11, **kwargs: Any):
        super().__init__(size=size, **kwargs)
        self.observation_space = Dict({k: s for k, s in self.observation_space.items() if k != "mission"})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        _, info = super().reset(seed=seed, options=options)
        self.agent_dir = int(self._rand_int(0, 4))
        return self.gen_obs(), info

    def gen_obs(self) -> dict[str, Any]:
        return {key: value for key, value in super().gen_obs().items() if key != "mission"}

    def render(self) -> Any:
        with warnings.catch_warnings():  # MiniGrid's window asks for a font by a name that pygame-ce does not have
            warnings.filterwarnings("ignore", message="The system font")
            return super().render()
