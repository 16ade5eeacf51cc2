"""Construction of vector environments from an id."""

from __future__ import annotations

import difflib
import warnings
from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np

from worldmodel.envs.engines.envpool import EnvpoolEnv, envpool_ids, sound
from worldmodel.envs.engines.gymnasium import GymnasiumEnv, Wrap, gymnasium_ids
from worldmodel.envs.output_check import check_size
from worldmodel.envs.vector import VectorEnv
from worldmodel.envs.wrappers.noisy_tv import TV, Kind
from worldmodel.envs.wrappers.positions import Places
from worldmodel.envs.wrappers.rooms import Rooms
from worldmodel.envs.wrappers.sticky import Sticky
from worldmodel.envs.wrappers.tiles import Tiles
from worldmodel.errors import ConfigError, check_choice, check_range

Engine = Literal["auto", "envpool", "gymnasium"]
Vectorization = Literal["sync", "async", "vector_entry_point"]


def make_env(
    id: str,
    engine: Engine = "auto",
    num_envs: int = 16,
    seed: int = 0,
    keys: list[str] | None = None,
    sticky: float = 0.0,
    null_action: int | None = None,
    render: bool = False,
    vectorization: Vectorization = "sync",
    levels: int | None = None,
    held_out: bool = False,
    tv: Kind = "clean",
    tv_action: int | Literal["added", "noop"] = "added",
    tv_size: float = 1.0,
    tv_values: list[int] | None = None,
    place: list[str] | None = None,
    place_width: float = 1.0,
    rooms: bool = False,
    pixels: bool = False,
    tile_size: int = 8,
    timeout: float = 120.0,
    max_faults: int = 100,
    info_keys: list[str] | None = None,
    wrappers: list[Wrap] | None = None,
    kwargs: dict[str, Any] | None = None,
    **others: Any,
) -> VectorEnv:
    """Create N copies of an environment; the same seed gives the same episodes, and no two copies share a seed.

    engine: `auto` takes envpool if it is installed, has the id and builds it correctly (not MiniGrid's MultiRoom, whose
        goal is often unreachable there) and there are no `wrappers`, else gymnasium.
    keys: of a Dict observation: None takes all but text, one gives that key's plain tensor, several a dict.
    sticky: probability that a copy repeats its last action instead of taking the new one.
    null_action: index of the action that does nothing, for signals and wrappers that need it.
    render: prepare for calls of `render()`.
    vectorization, timeout, max_faults: gymnasium only, see `GymnasiumEnv`.
    levels: gymnasium only: number of fixed levels, of which each reset draws one; null has no limit.
    held_out: draw from all other levels instead, which training does not use; see `Levels`.
    place, place_width: the keys of info that give the position of a copy, for coverage, see `Places`.
    rooms: of MiniGrid, add the room of a copy to info, see `Rooms`.
    pixels: of MiniGrid, draw the view as an image with `tile_size` pixels per cell and side, see `Tiles`.
    tv, tv_action, tv_size, tv_values: a noisy TV, see `TV`; `clean` has none. On `pixels` it draws any colours.
    info_keys: entries of info that are kept whatever their size, see `InfoEntries`.
    wrappers: gymnasium only: applied to each copy, in this order; each takes an environment and returns one.
    kwargs: arguments of the environment's constructor (of envpool: its options), e.g. `max_episode_steps`.
    others: the same, for names that this function does not have.

    Raises ValueError, in one line, for values that are not allowed, unknown ids, and unsupported spaces.
    """
    literals = (("engine", engine, Engine), ("vectorization", vectorization, Vectorization), ("tv", tv, Kind))
    for key, value, kind in literals:
        check_choice(f"env.{key}", value, get_args(kind))
    check_range("env.num_envs", num_envs, "[1, inf)", whole=True)
    check_range("env.seed", seed, "[0, inf)", whole=True)
    check_range("env.sticky", sticky, "[0, 1)")
    check_range("env.tv_size", tv_size, "(0, 1]")
    check_range("env.timeout", timeout, "(0, inf)")
    check_range("env.max_faults", max_faults, "[0, inf)", whole=True)
    check_range("env.levels", levels, "[1, inf)", whole=True, null=True)
    if held_out and levels is None:
        raise ValueError("env.held_out=True: needs env.levels, the number of levels that are not held out")
    # 31 bits each, the maximum of envpool; the last two are for the sticky actions and the TV
    seeds = (np.random.SeedSequence(seed).generate_state(num_envs + 2) >> 1).tolist()
    common: dict[str, Any] = {"seeds": seeds[:num_envs], "keys": keys, "null_action": null_action, "render": render}
    common |= {"kwargs": _arguments(kwargs, others), "requested": _requested(info_keys, place, rooms)}
    if wrappers and engine == "envpool":
        raise ConfigError("env.wrappers: allowed with env.engine=envpool is [], wrappers need env.engine=gymnasium")
    pool = [] if engine == "gymnasium" or wrappers else envpool_ids()
    if engine == "envpool" and not pool:
        raise ValueError("env.engine='envpool': envpool is not installed, allowed are auto and gymnasium")
    if id in pool and (engine == "envpool" or sound(id)):
        if not sound(id):
            warnings.warn(
                f"env.engine=envpool: the goal of {id} is often unreachable; use env.engine=auto", stacklevel=2
            )
        if levels is not None:
            raise ValueError(f"env.levels={levels}: envpool has no fixed levels, allowed with env.engine=gymnasium")
        env: VectorEnv = EnvpoolEnv(id, **common)
    elif engine == "envpool":
        raise ValueError(_unknown(id, "envpool", pool))
    else:
        try:
            limits = {"levels": levels, "held_out": held_out, "timeout": timeout, "max_faults": max_faults}
            env = GymnasiumEnv(id, vectorization=vectorization, wrappers=wrappers or [], **limits, **common)
        except gym.error.UnregisteredEnv:
            names = "envpool and gymnasium" if pool else "gymnasium"
            raise ValueError(_unknown(id, names, pool + gymnasium_ids())) from None
    try:
        check_size(env.obs_space, f"env.id={id!r}: the observation space")
        check_size(env.act_space, f"env.id={id!r}: the action space")
    except ConfigError:
        env.close()
        raise
    if place is not None:
        check_range("env.place_width", place_width, "(0, inf)")
        env = Places(env, place, place_width)
    for key in [key for key, chosen in (("rooms", rooms), ("pixels", pixels)) if chosen]:
        if changed := [w for w in wrappers or [] if getattr(w, "func", w).__module__ == "minigrid.wrappers"]:
            env.close()
            name = getattr(changed[0], "func", changed[0]).__name__
            raise ConfigError(f"env.{key}=True: allowed with env.wrappers={name}, which changes the view, is false")
    try:
        env = Rooms(env) if rooms else env
        env = Tiles(env, tile_size) if pixels else env
    except ConfigError:
        env.close()
        raise
    tv_values = None if pixels else tv_values
    if tv != "clean":
        env = TV(env, tv, tv_action, tv_size, tv_values, seeds[num_envs + 1])
    return Sticky(env, sticky, seeds[num_envs]) if sticky else env


def _arguments(kwargs: dict[str, Any] | None, others: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the environment's constructor, from `env.kwargs` and from additional keys of `env`."""
    kwargs = kwargs or {}
    for key, value in others.items():
        if key in kwargs:
            raise ConfigError(f"env.{key}={value}: env.kwargs has it as well, use env.kwargs.{key}={value} alone")
    return {**kwargs, **others}


def _requested(info_keys: list[str] | None, place: list[str] | None, rooms: bool) -> dict[str, str]:
    """Return the needed entries of info, each with the setting that needs it."""
    settings = dict.fromkeys(info_keys or [], "env.info_keys") | dict.fromkeys(place or [], "env.place")
    return settings | ({"agent_pos": "env.rooms"} if rooms else {})


def _unknown(id: str, engines: str, known: list[str]) -> str:
    close = difflib.get_close_matches(id, sorted(set(known)), n=3)
    return f"env.id={id!r}: unknown to {engines}, close matches are {', '.join(close) or 'none'}"
