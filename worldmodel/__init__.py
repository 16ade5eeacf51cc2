"""Curiosity-driven transformer world models.

Public names, imported when first used:

- `Agent`: a trained agent in one environment, `Agent.load(checkpoint)`, `agent.act(obs)`.
- `load_agent`: a checkpoint's `CuriousAgent` and its configuration.
- `make_env`: a vector of environments as the agent receives them.
- `__version__`: the installed version.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from worldmodel.interruption import exit_while_importing

if TYPE_CHECKING:
    from worldmodel.envs import make_env
    from worldmodel.training.loading import Agent, load_agent

    __version__: str

__all__ = ["Agent", "__version__", "load_agent", "make_env"]

exit_while_importing()

_MODULES = {"Agent": "training.loading", "load_agent": "training.loading", "make_env": "envs"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("worldmodel")
    if name in _MODULES:
        return getattr(import_module(f"worldmodel.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'worldmodel' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
