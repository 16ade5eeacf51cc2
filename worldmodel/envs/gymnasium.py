"""Environments in Python, by gymnasium's vector interface."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import pickle
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import cloudpickle
import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from worldmodel.envs.adapter import Adapter
from worldmodel.envs.same_step import NextStep
from worldmodel.envs.spaces import is_text

_PLUGINS = ("minigrid", "ale_py", "worldmodel.worlds")
"""Packages that register their environments when imported."""

_PATIENCE = 120.0
"""Seconds that a worker may take for one step."""


def gymnasium_ids() -> list[str]:
    """The ids that gymnasium knows, with those of the installed plugins."""
    for name in _PLUGINS:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    return list(gym.registry)


class GymnasiumEnv(Adapter):
    """gymnasium's `id` N times; see `VectorEnv`.

    vectorization: `sync` one after the other in this process; `async` a process each, with OMP_NUM_THREADS=1;
        `vector_entry_point` the environment's own vector version, through `NextStep` where it resets at once.
    kwargs: go to the environment, e.g. max_episode_steps.

    `sync` is resumable unless the environment is an EzPickle (MuJoCo, Box2D), and so is a vector environment whose
    metadata says `resumable`: its state is a pickle of the environments, so load only states that you trust.
    """

    def __init__(
        self,
        id: str,
        seeds: list[int],
        keys: Sequence[str] | None = None,
        null_action: int | None = None,
        render: bool = False,
        vectorization: Literal["sync", "async", "vector_entry_point"] = "sync",
        **kwargs: Any,
    ):
        if id not in gym.registry:
            gymnasium_ids()
        given = dict(kwargs, render_mode="rgb_array") if render else kwargs
        if vectorization != "vector_entry_point":
            vector = {"autoreset_mode": AutoresetMode.NEXT_STEP, "copy": False}
            given = dict(given, vector_kwargs=vector, wrappers=[_prepare])
        try:
            with _one_thread():
                venv = gym.make_vec(id, num_envs=len(seeds), vectorization_mode=vectorization, **given)
        except gym.error.UnregisteredEnv:
            raise
        except (gym.error.Error, ImportError, TypeError) as error:
            reason = str(error).split("\n")[0]
            raise ValueError(f"env.id={id!r}: gymnasium can't make it with {kwargs}: {reason}") from error
        if venv.metadata.get("autoreset_mode") == AutoresetMode.SAME_STEP:
            venv = NextStep(venv, null_action)
        super().__init__(venv, keys, null_action, seeds)
        # an EzPickle is pickled by its constructor's arguments, which loses where it was
        self.resumable = venv.metadata.get("resumable", False) or (
            isinstance(venv, SyncVectorEnv)
            and not any(isinstance(env.unwrapped, gym.utils.EzPickle) for env in venv.envs)
        )

    def state_dict(self) -> dict[str, Any]:
        if not self.resumable:
            return {}
        kept = {k: v for k, v in vars(self.venv).items() if k != "env_fns"}
        return {"over": self._over, "seed": self._seed, "venv": cloudpickle.dumps(kept)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.resumable and state:
            self._over, self._seed = state["over"], state["seed"]
            vars(self.venv).update(pickle.loads(state["venv"]))

    def _advance(self, actions: np.ndarray) -> tuple[Any, ...]:
        if not isinstance(self.venv, AsyncVectorEnv):
            return self.venv.step(actions)
        try:
            self.venv.step_async(actions)
            return self.venv.step_wait(timeout=_PATIENCE)
        except (multiprocessing.TimeoutError, EOFError, ConnectionError) as error:
            for process in self.venv.processes:
                process.kill()  # closing alone would wait for a worker that is stopped
            self.venv.close(terminate=True)
            raise RuntimeError(f"an env worker died, or was silent for {_PATIENCE:.0f} s") from error


class AgentPosition(gym.Wrapper):
    """Puts the agent's cell, (2,) int, into `info["agent_pos"]`, as envpool does for MiniGrid."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(**kwargs)
        return obs, self._tell(info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, rew, end, trunc, info = self.env.step(action)
        return obs, rew, end, trunc, self._tell(info)

    def _tell(self, info: dict[str, Any]) -> dict[str, Any]:
        return {**info, "agent_pos": np.array(self.unwrapped.agent_pos)}


def _prepare(env: gym.Env) -> gym.Env:
    """One copy, before it is vectorised: without text, which workers can't share, and telling where it is."""
    space = env.observation_space
    if isinstance(space, gym.spaces.Dict) and any(is_text(s) for s in space.values()):
        env = gym.wrappers.FilterObservation(env, [k for k, s in space.items() if not is_text(s)])
    return AgentPosition(env) if hasattr(env.unwrapped, "agent_pos") else env


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Processes started inside inherit OMP_NUM_THREADS=1."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
