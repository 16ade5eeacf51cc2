"""Cells of a benchmark, from the configuration of a suite."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from worldmodel.errors import ConfigError
from worldmodel.training.compose import compose_config, composing

# optional keys of a suite
DEFAULTS: dict[str, Any] = {
    "metric": "return_ext",
    "threshold": None,
    "score": [0.0, 1.0],
    "common": [],
    "evaluate": None,
    "first_seed": 0,
}
REQUIRED = ("name", "envs", "methods")
WORLD_KEYS = ("overrides", "threshold", "score", "seeds")
METHOD_KEYS = ("seeds", "overrides")
SEEDS = 5  # of a method, unless it or the environment has another number


@dataclass(frozen=True)
class World:
    """An environment of a suite, its threshold and its range of scores."""

    name: str  # the suite's name for it, and its folder
    overrides: tuple[str, ...]
    threshold: float | None  # of the suite's metric, at which the environment counts as solved
    score: tuple[float, float]  # values of the metric with the scores 0 and 1
    seeds: int | None = None  # of every method in it; None: those of the method


@dataclass(frozen=True)
class Cell:
    """One training run: an environment, a method, a seed."""

    world: World
    env: str  # the environment's id; results go by the world's name, since several worlds may share an id
    method: str
    seed: int
    overrides: tuple[str, ...]
    budget: int  # environment steps
    metric: str  # column of metrics.csv that is compared
    evaluate: tuple[str, ...] | None  # overrides of the evaluation after the training, if there is one
    folder: Path


def cells_of(
    suite: DictConfig,
    out: Path,
    *,
    methods: list[str] | None = None,
    envs: list[str] | None = None,
    seeds: Sequence[int] | None = None,
    first_seed: int | None = None,
    overrides: list[str] | tuple[str, ...] = (),
) -> list[Cell]:
    """Return the cells of a suite, after composing the configuration of every method.

    Args:
        suite: configuration of the suite.
        out: folder of the benchmark.
        methods: names of methods. None: all.
        envs: names of environments. None: all.
        seeds: of each method. None: from `first_seed`, as many as the environment or the method sets.
        first_seed: the first of them. None: that of the suite.
        overrides: of every run, after those of the suite.

    Raises:
        ConfigError: names the suite's key. Every configuration is checked before a run starts.
    """
    plain = _plain(suite)
    worlds = [_world(name, node, plain) for name, node in plain["envs"].items()]
    worlds = [w for w in worlds if w.name in _chosen("envs", envs, plain["envs"])]
    chosen = _chosen("methods", methods, plain["methods"])
    for name in chosen:
        _check_node(f"suite.methods.{name}", plain["methods"][name], METHOD_KEYS)
    _check_names("methods", chosen)
    _check_names("envs", [w.name for w in worlds])
    with composing():
        found = {}
        for world in worlds:
            for method in chosen:
                own = plain["methods"][method].get("overrides", [])
                changes = (*plain["common"], *world.overrides, *own, *overrides)
                found[world.name, method] = changes, compose_config(changes, purpose=f"{method} on {world.name}")
    first = plain["first_seed"] if first_seed is None else first_seed
    evaluate = None if plain["evaluate"] is None else tuple(plain["evaluate"])
    return [
        Cell(
            world=world,
            env=found[world.name, method][1].env.id,
            method=method,
            seed=seed,
            overrides=found[world.name, method][0],
            budget=found[world.name, method][1].total_steps,
            metric=plain["metric"],
            evaluate=evaluate,
            folder=out / world.name / f"{method}_seed{seed}",
        )
        for world in worlds
        for method in chosen
        for seed in seeds or range(first, first + (world.seeds or plain["methods"][method].get("seeds", SEEDS)))
    ]


def with_presets(suite: DictConfig, folder: Path) -> DictConfig:
    """Return a suite with a further method `<signal>_tuned` for each preset of `worldmodel.tune` in a folder.

    Raises ConfigError for a folder without presets, and for a file that is none.
    """
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise ConfigError(f"presets={folder}: has no preset, <signal>.yaml")
    methods = {}
    for file in files:
        try:
            node = OmegaConf.load(file)
        except (OSError, ValueError, YAMLError):
            node = None
        if not OmegaConf.is_dict(node) or not OmegaConf.is_list(node.get("overrides")):
            raise ConfigError(f"presets={folder}: {file.name} is no preset, it has no list of overrides")
        methods[f"{file.stem}_tuned"] = {"overrides": node.overrides}
    found = suite.copy()
    OmegaConf.set_struct(found, False)
    found.methods = {**suite.methods, **methods}
    return found


def _plain(suite: DictConfig) -> dict[str, Any]:
    plain: dict[str, Any] = OmegaConf.to_container(suite, resolve=True)
    for key in plain.keys() - {*DEFAULTS, *REQUIRED}:
        raise ConfigError(f"suite.{key}={plain[key]}: no such key, allowed are {', '.join((*REQUIRED, *DEFAULTS))}")
    for key in REQUIRED:
        if not plain.get(key):
            raise ConfigError(f"suite.{key}={plain.get(key)}: must be given")
    return DEFAULTS | plain


def _world(name: str, node: Any, suite: dict[str, Any]) -> World:
    """Read an environment: a list of overrides, or a mapping with overrides, threshold and range of scores."""
    node = {"overrides": node} if isinstance(node, list) else node
    _check_node(f"suite.envs.{name}", node, WORLD_KEYS)
    low, high = node.get("score", suite["score"])
    if not low < high:
        raise ConfigError(f"suite.envs.{name}.score=[{low}, {high}]: allowed are two numbers, the lower one first")
    return World(
        name, tuple(node["overrides"]), node.get("threshold", suite["threshold"]), (low, high), node.get("seeds")
    )


def _check_node(path: str, node: Any, keys: tuple[str, ...]) -> None:
    if not isinstance(node, dict):
        raise ConfigError(f"{path}={node}: allowed is a mapping with {', '.join(keys)}")
    for key in node.keys() - set(keys):
        raise ConfigError(f"{path}.{key}={node[key]}: no such key, allowed are {', '.join(keys)}")


def _check_names(key: str, names: list[str]) -> None:
    for name in names:
        if not re.fullmatch(r"[\w.-]+", name):
            raise ConfigError(f"suite.{key}: {name!r} names a folder, allowed are letters, digits, '_', '-' and '.'")


def _chosen(key: str, wanted: list[str] | None, known: dict[str, Any]) -> list[str]:
    if unknown := sorted(set(wanted or ()) - set(known)):
        raise ConfigError(f"{key}={unknown}: allowed are {', '.join(known)}")
    return list(wanted or known)
