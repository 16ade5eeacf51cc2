"""Benchmark cells with default values."""

from __future__ import annotations

from pathlib import Path

from worldmodel.experiments.benchmark.suite import Cell, World


def cell(folder: Path, method: str, seed: int, env: str = "E-v0", **changes: object) -> Cell:
    """A cell whose other fields are defaults; `changes` replaces any of them."""
    world = World(env, (), threshold=0.9, score=(0.0, 1.0))
    values = dict(world=world, env=env, method=method, seed=seed, overrides=(), budget=10_000, metric="return_ext")
    return Cell(**values | {"evaluate": None, "folder": folder / env / f"{method}_seed{seed}"} | changes)
