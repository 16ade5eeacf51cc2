"""Environments in C++ threads (envpool): MiniGrid, BabyAI, Atari, MuJoCo, classic control and more."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from worldmodel.envs.adapter import Adapter

_DRAWN = ("atari", "box2d", "classic_control", "highway", "minigrid")
"""Families that render in software. MuJoCo needs OpenGL and ends the process without it; toy_text cannot render."""

_CHEAP = ("classic_control", "minigrid", "toy_text")
"""Families whose steps cost less than the start of a second thread."""

_REPEATED = {
    "atari": 68_000,
    "box2d": 2_000_000,
    "classic_control": 4_000_000,
    "minigrid": 3_500_000,
    "mujoco": 660_000,
    "toy_text": 4_000_000,
}
"""Steps that a family repeats in 20 s on one core, HalfCheetah for MuJoCo; Humanoid is seven times slower."""

_UNSOUND = ("MiniGrid-MultiRoom-",)
"""Prefixes of the ids of worlds that envpool (1.2.5) builds incorrectly.

There are walls in place of doors, and the goal is unreachable in 68 levels of 100 (MultiRoom-N6; N4-S5: 81, N2-S4: 30).
A test in test_solvable.py fails once this is repaired.
"""


def sound(id: str) -> bool:
    """Return True if envpool builds the world `id` correctly."""
    return not id.startswith(_UNSOUND)


def envpool_ids() -> list[str]:
    """Return the ids of envpool; empty if it is not installed."""
    try:
        import envpool
    except ImportError:
        return []
    return envpool.list_all_envs()


class EnvpoolEnv(Adapter):
    """envpool's `id` with N copies; see `VectorEnv`.

    envpool returns a new array at each step, so tensors share its memory. An episode that terminates exactly at its
    time limit is reported as truncated only.

    requested: entries of info that are needed, see `InfoEntries`.
    kwargs: arguments of envpool, e.g. max_episode_steps or stack_num.

    Raises ValueError for arguments that envpool does not take.
    """

    def __init__(
        self,
        id: str,
        seeds: list[int],
        keys: Sequence[str] | None = None,
        null_action: int | None = None,
        render: bool = False,
        requested: Mapping[str, str] | None = None,
        kwargs: dict[str, Any] | None = None,
    ):
        import envpool
        from envpool.registration import registry

        kwargs = dict(kwargs or {})
        family = registry.specs[id][0].split(".")[1]
        if render and family in _DRAWN:
            kwargs["render_mode"] = "rgb_array"
        if family in _CHEAP:
            kwargs.setdefault("num_threads", 1)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*precision lowered by casting")
            try:
                # with an int, copy i has the seed + i, and neighbouring seeds share all copies but one
                venv = envpool.make_gymnasium(id, num_envs=len(seeds), seed=seeds, **kwargs)
            except (AssertionError, RuntimeError, TypeError, ValueError) as error:
                reason = str(error).split("\n")[0]
                raise ValueError(f"env.id={id!r}: envpool does not take {kwargs}: {reason}") from error
            super().__init__(venv, keys, null_action, copy=False, requested=requested)
        self.time_limit = venv.spec.config.max_episode_steps
        self.repeat_limit = _REPEATED.get(family, 68_000) // (7 if id.startswith("Humanoid") else 1)
