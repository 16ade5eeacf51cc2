"""MiniGrid's Memory, where an episode begins with a look anywhere."""

from __future__ import annotations

from typing import Any

from minigrid.envs.memory import MemoryEnv


class MemoryFacingAnywhere(MemoryEnv):
    """MiniGrid-Memory (Chevalier-Boisvert et al. 2023) with one difference: the agent does not begin with its back to
    the object that it must remember, but faces any of the four directions, each as probably.

    So one episode in four shows the object at once, and the original's starts are another fourth: a lesson that a
    memory can be learnt from before the agent has found out that it pays to turn round (starts that are nearer to the
    solution first: Florensa et al. 2017, arXiv 1707.05300).

    size: as in MiniGrid's ids, MemoryS11 has 11.
    """

    def __init__(self, size: int = 11, **kwargs: Any):
        super().__init__(size=size, **kwargs)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        _, info = super().reset(seed=seed, options=options)
        self.agent_dir = int(self._rand_int(0, 4))
        return self.gen_obs(), info
