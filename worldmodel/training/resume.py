"""Checks of a configuration against the checkpoint that it resumes from, by the names of settings."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from worldmodel.curiosity import per_env_buffers
from worldmodel.errors import ConfigError
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.training.checkpoint import agent_state, fit_check
from worldmodel.training.config import CONFIG_DIR

FIXED = ("encoder", "target", "memory", "model", "heads", "policy.actor")
"""Groups whose settings define networks: they cannot change when a run resumes, except those in `FREE`."""

FREE = frozenset(
    {
        *("memory.attention", "memory.dropout", "memory.options.resid_pdrop", "memory.options.embd_pdrop"),
        *("memory.options.attn_pdrop", "memory.max_length"),
        *("target.decay", "target.directions", "target.knots", "target.t_max"),
        *(f"policy.actor.{key}" for key in ("memory_gradient", "memory_gain", "noise", "std", "null_bias")),
        *(f"policy.actor.{key}" for key in ("temperature", "temperature_end", "anneal")),
    }
)
"""Settings of these groups that may change, unless a tensor then has another shape."""

SAME_ENVIRONMENT = frozenset(
    f"env.{key}" for key in ("num_envs", "engine", "seed", "render", "vectorization", "timeout", "max_faults")
)
"""Settings of `env` that do not make another environment."""

_ABSENT = object()


def check_resumable(saved: dict[str, Any], cfg: DictConfig, agent: CuriousAgent, path: str | Path) -> None:
    """Check that a run can resume from a checkpoint with a configuration; warn of another environment.

    Args:
        saved: the checkpoint, with its configuration.
        cfg: the configuration of the run that resumes.
        agent: the agent of `cfg`.
        path: of the checkpoint, for messages.

    Raises:
        ConfigError: for settings that cannot change, by key, new and old value, and for another optimiser.
    """
    old = OmegaConf.to_container(OmegaConf.create(saved["config"]), resolve=True)
    new = OmegaConf.to_container(cfg, resolve=True)
    if (there := sorted(old.get("heads") or ())) != (here := sorted(new.get("heads") or ())):
        raise _fixed("heads", there, here, path)
    for group in (*FIXED, "optimizer"):
        for key, there, here in differences(_select(old, group), _select(new, group), group):
            if key not in FREE and (group != "optimizer" or key == "optimizer._target_"):
                raise _fixed(key, there, here, path)
    others = list(differences(old.get("env"), new.get("env"), "env"))
    changed = [entry for entry in others if entry[0] not in SAME_ENVIRONMENT]
    groups = {key.split(".")[0] for key in FREE} | {"curiosity", "policy", "reward"}
    found = [entry for group in sorted(groups) for entry in differences(old.get(group), new.get(group), group)]
    state = with_own_environments(agent_state(saved), agent)
    try:
        fit_check(state, agent, path)
    except ConfigError as error:
        for key, there, here in [*found, *changed]:
            raise _fixed(key, there, here, path) from error
        raise
    if changed:
        names = ", ".join(f"{key}={_text(here)} (was {_text(there)})" for key, there, here in changed)
        print(f"warning: {names}: the run resumes in another environment", file=sys.stderr, flush=True)


def with_own_environments(state: dict[str, Tensor], agent: CuriousAgent, prefix: str = "") -> dict[str, Tensor]:
    """Return a saved state of an agent, in which state of another number of environments is replaced by fresh state.

    Args:
        state: by name; each name begins with `prefix`.
        agent: a new agent, whose buffers per environment are fresh.
        prefix: of the names in `state`.
    """
    own = per_env_buffers(agent)
    fresh = {
        f"{prefix}{name}": own[name]
        for name in own
        if (there := state.get(f"{prefix}{name}")) is not None and there.shape[:1] != own[name].shape[:1]
        if there.shape[1:] == own[name].shape[1:]
    }
    return {**state, **fresh}


def differences(old: Any, new: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield the keys at which two plain configurations differ, with both values.

    Two parts with different targets differ as a whole. A key that only one of them has, without a value or with an
    empty one, is no difference: it was added after the run began, or removed.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        if old.get("_target_") != new.get("_target_"):
            yield f"{key}._target_", old.get("_target_", old), new.get("_target_", new)
            return
        for name in [*old, *(n for n in new if n not in old)]:
            yield from differences(old.get(name, _ABSENT), new.get(name, _ABSENT), f"{key}.{name}")
    elif _ABSENT in (old, new):
        present = new if old is _ABSENT else old
        if present not in (None, False, 0, "", [], {}):
            yield key, None if old is _ABSENT else old, None if new is _ABSENT else new
    elif old != new:
        yield key, old, new


def _select(config: dict[str, Any], group: str) -> Any:
    for name in group.split("."):
        config = config.get(name, {})
    return config


def _fixed(key: str, there: Any, here: Any, path: str | Path) -> ConfigError:
    """Return the error for a setting that cannot change; another target is named by the option of its group."""
    group, _, last = key.rpartition(".")
    if last == "_target_":
        key, there, here = group, option_of(group, there), option_of(group, here)
    return ConfigError(f"{key}={_text(here)}: allowed is {_text(there)}, that of the run of checkpoint={path}")


def option_of(group: str, target: Any) -> Any:
    """Return the option of a configuration group that has a target, the target itself where no file has it."""
    texts = {file.stem: file.read_text() for file in sorted(Path(CONFIG_DIR, *group.split(".")).glob("*.yaml"))}
    pattern = re.compile(rf"^_target_: *{re.escape(str(target))} *$", re.MULTILINE)
    found = [name for name, text in texts.items() if pattern.search(text)]
    return min(found, key=lambda name: "defaults:" in texts[name], default=target)  # an option before its variants


def _text(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
