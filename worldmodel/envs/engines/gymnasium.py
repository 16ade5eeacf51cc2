"""Environments in Python, through Gymnasium's vector interface."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode

from worldmodel.envs.adapter import Adapter
from worldmodel.envs.engines.autoreset import NextStep
from worldmodel.envs.engines.checked_vector import CheckedVector
from worldmodel.envs.engines.fault_tolerant_vector import FaultTolerantVectorEnv
from worldmodel.envs.engines.workers import one_thread
from worldmodel.envs.flat import flatten
from worldmodel.envs.wrappers.levels import Levels
from worldmodel.errors import ConfigError

Wrap = Callable[[gym.Env], gym.Env]

_PLUGINS = ("minigrid", "ale_py", "worldmodel.envs.worlds")
"""Packages that register their environments when imported."""


def gymnasium_ids() -> list[str]:
    """Return the ids registered with gymnasium, including those of the installed plugins."""
    for name in _PLUGINS:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    return list(gym.registry)


LONGEST_EPISODE = 10_000
"""Steps after which a recorded episode without a time limit of its own is truncated."""


class GymnasiumEnv(Adapter):
    """gymnasium's `id` with N copies; see `VectorEnv`.

    vectorization: `sync`: sequentially in this process. `async`: one process each, with OMP_NUM_THREADS=1.
        `vector_entry_point`: the environment's own vector version, through `NextStep` if it resets in the same step.
    levels, held_out: see `Levels`; null has no such limit.
    timeout, max_faults: see `FaultTolerantVectorEnv`, which replaces failed copies; not for `vector_entry_point`.
    wrappers: applied to each copy in this order, before the project's own; none for `vector_entry_point`.
    requested: entries of info that are needed, see `InfoEntries`.
    kwargs: arguments of the environment, e.g. max_episode_steps.

    `sync` and `async` are resumable (see `ResumableEnv`), by repeating the actions of the running episodes. So is a
    vector environment with its own `state` and `restore`, such as `Worlds`.

    Raises ValueError for arguments that the environment or a wrapper does not take.
    """

    def __init__(
        self,
        id: str,
        seeds: list[int],
        keys: Sequence[str] | None = None,
        null_action: int | None = None,
        render: bool = False,
        vectorization: Literal["sync", "async", "vector_entry_point"] = "sync",
        levels: int | None = None,
        held_out: bool = False,
        timeout: float = 120.0,
        max_faults: int = 100,
        wrappers: Sequence[Wrap] = (),
        requested: Mapping[str, str] | None = None,
        kwargs: dict[str, Any] | None = None,
    ):
        if id not in gym.registry:
            gymnasium_ids()
        kwargs = kwargs or {}
        given = dict(kwargs, render_mode="rgb_array") if render else kwargs
        layers = [partial(_apply, wrap, f"env.wrappers[{i}]") for i, wrap in enumerate(wrappers)]
        layers += [_prepare] if levels is None else [_prepare, partial(Levels, count=levels, held_out=held_out)]
        layers.append(flatten)  # the last one: workers share neither text nor nested values
        module, _, name = id.rpartition(":")
        try:
            if module:
                importlib.import_module(module)  # registers the id; unlike gym.make, gym.spec does not import
            if vectorization == "vector_entry_point":
                if levels is not None:
                    raise ConfigError(f"env.levels={levels}: allowed with env.vectorization={vectorization} is null")
                if wrappers:
                    names = ", ".join(map(_name, wrappers))
                    raise ConfigError(f"env.wrappers=[{names}]: allowed with env.vectorization={vectorization} is []")
                with one_thread():
                    venv = gym.make_vec(name, num_envs=len(seeds), vectorization_mode=vectorization, **given)
                venv = CheckedVector(venv, id)
            else:
                make, processes = partial(_make, gym.spec(name), layers, given), vectorization == "async"
                venv = FaultTolerantVectorEnv(make, len(seeds), processes, timeout, max_faults, requested)
        except (gym.error.UnregisteredEnv, ConfigError):
            raise
        except Exception as error:  # a constructor may raise anything
            if str(error).startswith("env."):
                raise
            reason = f"{type(error).__name__}: {error}".split("\n")[0]
            raise ConfigError(f"env.id={id!r}: gymnasium cannot create it with {kwargs}: {reason}") from error
        if venv.metadata.get("autoreset_mode") == AutoresetMode.SAME_STEP:
            venv = NextStep(venv, null_action)
        try:
            super().__init__(venv, keys, null_action, seeds, requested=requested)
        except ValueError as error:
            venv.close()
            text = str(error)
            raise ConfigError(text if text.startswith("env.") else f"env.id={id!r}: {text}") from error
        self.resumable, self.repeats = hasattr(venv, "restore"), isinstance(venv, FaultTolerantVectorEnv)

    def record(self, path: Path | None = None, limit: int | None = None) -> None:
        if self.resumable and not self.repeats:
            return
        super().record(path, limit)
        if self.repeats:
            given = max(LONGEST_EPISODE, self.time_limit or 0) if limit is None else max(limit // self.num_envs, 1)
            self.limit_episodes(given)

    def limit_episodes(self, steps: int) -> None:
        if self.repeats:
            self.venv.limit = steps

    def is_spent(self, steps: int) -> bool:
        return not self.resumable and super().is_spent(steps)

    def flush(self) -> None:
        if self.repeats and self._log is not None:
            self._log.forget(self.venv.longest)
        super().flush()

    def state_dict(self) -> dict[str, Any]:
        if not self.resumable:
            return super().state_dict()
        if self.repeats and self._log is None:
            return {}
        self.flush()
        state = self.venv.state()
        log = None if self._log is None else self._log.state_dict()
        own = {"over": self._over, "seed": self._seed, "log": log}
        return state and {**own, "venv": _convert(state, np.ndarray, torch.from_numpy)}

    def load_state_dict(self, state: dict[str, Any]) -> bool:
        if not self.resumable:
            return super().load_state_dict(state)
        if not state:
            return False
        self._over, self._seed = state["over"], state["seed"]
        saved = _convert(state["venv"], torch.Tensor, torch.Tensor.numpy)
        if not self.repeats:
            return self.venv.restore(saved)
        longest = int(saved["steps"].max())
        if self._log is None or not self._log.load_state_dict(state["log"]) or len(self._log) < longest:
            return False
        self._begun = True
        return self.venv.restore(
            saved, [self.translation.write(act, self.num_envs, flat=self._flat) for act in self._log.last(longest)]
        )


class AgentPosition(gym.Wrapper):
    """Wrapper that adds the agent's position as `info["agent_pos"]`, as envpool does for MiniGrid.

    It is a cell, (2,) int. In worlds whose agent is an entity, such as MiniWorld, it is the entity's position, (3,)
    float.
    """

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(**kwargs)
        return obs, self._tell(info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, rew, end, trunc, info = self.env.step(action)
        return obs, rew, end, trunc, self._tell(info)

    def _tell(self, info: dict[str, Any]) -> dict[str, Any]:
        world = self.unwrapped
        return {**info, "agent_pos": np.array(world.agent_pos if hasattr(world, "agent_pos") else world.agent.pos)}


def _make(spec: Any, layers: list[Wrap], given: dict[str, Any]) -> gym.Env:
    """Create one copy. Gymnasium's own check of it is replaced by `OutputCheck`."""
    env = gym.make(spec, disable_env_checker=True, **given)
    for wrap in layers:
        env = wrap(env)
    return env


def _apply(wrap: Wrap, setting: str, env: gym.Env) -> gym.Env:
    """Apply a wrapper of the configuration. Raises ConfigError, which names its setting."""
    kind = wrap.func if isinstance(wrap, partial) else wrap
    if kind in (gym.wrappers.NormalizeObservation, gym.wrappers.NormalizeReward):
        raise ConfigError(
            f"{setting}: {_name(wrap)} has statistics of its own in each copy, which an evaluation begins anew; "
            "allowed are wrappers without a state that outlives an episode"
        )
    try:
        wrapped = wrap(env)
    except Exception as error:  # a constructor may raise anything
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        given = wrap.keywords if isinstance(wrap, partial) else {}
        raise ConfigError(f"{setting}: {_name(wrap)} cannot be applied with {given}: {reason}") from error
    if not isinstance(wrapped, gym.Env):
        found = type(wrapped).__name__
        raise ConfigError(f"{setting}: {_name(wrap)} gives a {found}, allowed are wrappers of gymnasium.Env")
    return wrapped


def _name(wrap: Wrap) -> str:
    return getattr(wrap.func if isinstance(wrap, partial) else wrap, "__name__", str(wrap))


def _prepare(env: gym.Env) -> gym.Env:
    """Prepare one copy: add the agent's position."""
    has_position = hasattr(env.unwrapped, "agent_pos") or hasattr(getattr(env.unwrapped, "agent", None), "pos")
    return AgentPosition(env) if has_position else env


def _convert(node: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """Convert the leaves of one type in a nested state: a checkpoint contains tensors, an engine arrays."""
    if isinstance(node, dict):
        return {key: _convert(value, kind, change) for key, value in node.items()}
    if isinstance(node, list):
        return [_convert(value, kind, change) for value in node]
    return change(node) if isinstance(node, kind) else node
