"""From a suite's configuration to its cells."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from worldmodel.errors import ConfigError
from worldmodel.training.config import CONFIG_DIR
from worldmodel.training.renamed_keys import refuse_renamed

# what a suite says, and what it need not say
DEFAULTS: dict[str, Any] = {
    "metric": "return_ext",
    "threshold": None,
    "score": [0.0, 1.0],
    "common": [],
    "evaluate": None,
}
REQUIRED = ("name", "envs", "methods")
WORLD_KEYS = ("overrides", "threshold", "score")
METHOD_KEYS = ("seeds", "overrides")


@dataclass(frozen=True)
class World:
    """An environment of a suite, and what counts there."""

    name: str  # the suite's word for it, and its folder
    overrides: tuple[str, ...]
    threshold: float | None  # of the suite's metric: reached means solved
    score: tuple[float, float]  # values of the metric that are called 0 and 1


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
    overrides: list[str] | tuple[str, ...] = (),
) -> list[Cell]:
    """All cells of a suite, or those of some methods and environments: these `seeds` of each, or as many from 0 as the
    suite says.

    Every method's configuration is composed, so that what is wrong with one is known before anything runs.
    Raises ConfigError, naming the suite's key.
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
                said = plain["methods"][method].get("overrides", [])
                changes = (*plain["common"], *world.overrides, *said, *overrides)
                found[world.name, method] = changes, compose_run(f"{method} on {world.name}", changes)
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
        for seed in seeds or range(plain["methods"][method].get("seeds", 5))
    ]


@contextmanager
def composing() -> Iterator[None]:
    """Hydra ready to compose, within a Hydra job as well as outside of one."""
    if GlobalHydra.instance().is_initialized():
        yield
    else:
        with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
            yield


def compose_run(what: str, overrides: tuple[str, ...]) -> DictConfig:
    """The training configuration with these overrides. Raises ConfigError, saying `what` it was for."""
    try:
        refuse_renamed(overrides)
        return compose("train", overrides=list(overrides))
    except Exception as error:  # hydra's and omegaconf's own, which share no base
        raise ConfigError(f"{what}: {' '.join(str(error).split())}") from None


def _plain(suite: DictConfig) -> dict[str, Any]:
    plain: dict[str, Any] = OmegaConf.to_container(suite, resolve=True)
    for key in plain.keys() - {*DEFAULTS, *REQUIRED}:
        raise ConfigError(f"suite.{key}={plain[key]}: no such key, allowed are {', '.join((*REQUIRED, *DEFAULTS))}")
    for key in REQUIRED:
        if not plain.get(key):
            raise ConfigError(f"suite.{key}={plain.get(key)}: must be given")
    return DEFAULTS | plain


def _world(name: str, node: Any, suite: dict[str, Any]) -> World:
    """An environment is a list of overrides, or a mapping with a threshold or a score range of its own besides."""
    node = {"overrides": node} if isinstance(node, list) else node
    _check_node(f"suite.envs.{name}", node, WORLD_KEYS)
    low, high = node.get("score", suite["score"])
    if not low < high:
        raise ConfigError(f"suite.envs.{name}.score=[{low}, {high}]: allowed are two numbers, the lower one first")
    return World(name, tuple(node["overrides"]), node.get("threshold", suite["threshold"]), (low, high))


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
