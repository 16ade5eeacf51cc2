"""Environments in C++ threads (envpool): MiniGrid, BabyAI, Atari, MuJoCo, classic control and more."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from worldmodel.envs.adapter import Adapter

_DRAWN = ("atari", "box2d", "classic_control", "highway", "minigrid")
"""Families that draw in software. MuJoCo needs OpenGL and ends the process without it; toy_text can't."""

_CHEAP = ("classic_control", "minigrid", "toy_text")
"""Families whose steps cost less than waking a second thread."""

_UNSOUND = ("MiniGrid-MultiRoom-",)
"""Begin the ids of worlds that envpool (1.2.5) builds wrongly: there are walls where doors should be, and the goal is
out of reach in 68 levels of 100 (MultiRoom-N6; N4-S5: 81, N2-S4: 30). A test in test_solvable.py notices a repair."""


def sound(id: str) -> bool:
    """Whether envpool's world `id` is the one that its name stands for."""
    return not id.startswith(_UNSOUND)


def envpool_ids() -> list[str]:
    """The ids that envpool knows; none where it is not installed."""
    try:
        import envpool
    except ImportError:
        return []
    return envpool.list_all_envs()


class EnvpoolEnv(Adapter):
    """envpool's `id` in N threads; see `VectorEnv`.

    envpool hands out a fresh array each time, so tensors share its memory. It reports an episode that
    terminates exactly at its time limit as truncated only.
    kwargs: go to envpool, e.g. max_episode_steps or stack_num.
    """

    def __init__(
        self,
        id: str,
        seeds: list[int],
        keys: Sequence[str] | None = None,
        null_action: int | None = None,
        render: bool = False,
        **kwargs: Any,
    ):
        import envpool
        from envpool.registration import registry

        family = registry.specs[id][0].split(".")[1]
        if render and family in _DRAWN:
            kwargs["render_mode"] = "rgb_array"
        if family in _CHEAP:
            kwargs.setdefault("num_threads", 1)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*precision lowered by casting")
            try:
                # an int would give copy i the seed + i: neighbouring seeds would share all copies but one
                venv = envpool.make_gymnasium(id, num_envs=len(seeds), seed=seeds, **kwargs)
            except (AssertionError, RuntimeError, TypeError, ValueError) as error:
                reason = str(error).split("\n")[0]
                raise ValueError(f"env.id={id!r}: envpool does not take {kwargs}: {reason}") from error
            super().__init__(venv, keys, null_action, copy=False)
