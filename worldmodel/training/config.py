"""Location and checks of configurations, and construction of the parts that they name."""

from __future__ import annotations

import inspect
import logging
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.errors import InstantiationException
from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf

from worldmodel.errors import ConfigError, SettingError, check_range
from worldmodel.training.ranges import check_named_range
from worldmodel.training.renamed_keys import new_name

logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # it logs, in three lines, each error that it raises
_HERE = Path(__file__).resolve().parents[1]
HYDRA_KEYS = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")
CONFIG_DIR = str(_HERE / "configs" if (_HERE / "configs").is_dir() else _HERE.parent / "configs")


@contextmanager
def bad_input(cfg: DictConfig | None = None) -> Iterator[None]:
    """Convert the errors of constructors to ConfigError, with the key that the user set.

    Args:
        cfg: the configuration that the parts are built from; it locates arguments of nested parts.
    """
    try:
        yield
    except InstantiationException as error:
        cause, where = error.__cause__ or error, str(error).rpartition("full_key: ")[2]
        if isinstance(cause, SettingError):
            raise located(cause, cfg) from error
        line = str(cause).splitlines()[0]
        # errors of this project name their key; those of a library do not
        raise ConfigError(line if isinstance(cause, ValueError) else f"{where}: {line}") from error
    except SettingError as error:
        raise located(error, cfg) from error
    except ValueError as error:
        raise ConfigError(str(error).splitlines()[0]) from error


def located(error: SettingError, cfg: DictConfig | None) -> SettingError:
    """Return the error of a nested part with its full key, for example `curiosity.parts.rnd.proportion`.

    The key in a constructor's error consists of a group and an argument; parts nested in the group have longer keys.
    """
    group, _, argument = error.key.rpartition(".")
    if cfg is None or not group or OmegaConf.select(cfg, error.key, default=None) == error.value:
        return error
    plain = OmegaConf.to_container(cfg, resolve=True).get(group.split(".")[0], {})
    paths = [path for path, node in _nodes(plain, group.split(".")[0]) if node.get(argument, _nodes) == error.value]
    return SettingError(f"{paths[0]}.{argument}", error.value, error.allowed) if len(paths) == 1 else error


def _nodes(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each mapping below a node, with its path."""
    if isinstance(node, dict):
        yield path, node
        for key, value in node.items():
            yield from _nodes(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from _nodes(value, f"{path}[{i}]")


def fill(partial: Callable[..., Any], **available: Any) -> Any:
    """Call a partial with those of the available arguments that it takes and has not been given.

    Constructors receive sizes that depend on the environment in this way, by name.
    """
    taken = inspect.signature(partial).parameters
    given = getattr(partial, "keywords", {})
    return partial(**{k: v for k, v in available.items() if k in taken and k not in given})


def check(cfg: DictConfig) -> None:
    """Check a training configuration, and each of its `_target_` nodes against the signature of the target.

    Raises:
        ConfigError: for missing values, unknown keys and values of another type or out of range.
    """
    known = top_level()
    for key in sorted(known - cfg.keys()):
        raise ConfigError(f"~{key}: not allowed, every run needs this key")
    if missing := sorted(OmegaConf.missing_keys(cfg)):
        raise ConfigError(f"{missing[0]}=???: a value must be given")
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)
    for key in sorted(plain.keys() - known):
        raise _no_such_key(key, plain[key], ", ".join(sorted(known)))
    for key, kind in (
        ("name", str),
        ("total_steps", int),
        ("seed", int),
        ("threads", int | None),
        ("stop_return", float | None),
        ("overwrite", bool),
        ("video", bool),
        ("compile", bool),
        ("preemption", str | None),
    ):
        plain[key] = _checked_value(key, plain[key], kind)
        OmegaConf.update(cfg, key, plain[key])
    check_range("total_steps", plain["total_steps"], "[1, inf)", whole=True)
    check_range("seed", plain["seed"], "[0, 9223372036854775808]", whole=True)  # to 2**63
    check_range("threads", plain["threads"], "[1, inf)", whole=True, null=True)
    for key, value in plain["weights"].items():
        _checked_value(f"weights.{key}", value, float)
    for group, node in plain.items():
        if isinstance(node, dict) and "_target_" not in node and group != "weights":
            parts = [key for key, part in node.items() if isinstance(part, dict) and ("_target_" in part or not part)]
            for key in sorted(node.keys() - set(parts)):  # nothing would read it
                raise _no_such_key(f"{group}.{key}", node[key], ", ".join(parts))
    _check_wrappers(plain["env"].get("wrappers"))
    for path, node in _targets(plain, ""):
        try:
            target = get_method(node["_target_"])
        except Exception as error:
            raise ConfigError(f"{path}._target_={node['_target_']}: not found ({_last_line(error)})") from None
        given = {k: v for k, v in node.items() if k not in HYDRA_KEYS}
        check_call(path, target, given)
        for key, value in given.items():
            if value is not node[key]:  # a whole number that was given as a float
                OmegaConf.update(cfg, f"{path}.{key}", value)


def _check_wrappers(wrappers: Any) -> None:
    """Check the form of `env.wrappers`; `check` then checks each wrapper's arguments."""
    allowed = "a list of mappings, each with a wrapper's full name as _target_"
    if not isinstance(wrappers, list | None):
        raise ConfigError(f"env.wrappers={wrappers}: allowed is {allowed}")
    for i, node in enumerate(wrappers or []):
        if not isinstance(node, dict) or not isinstance(node.get("_target_"), str):
            raise ConfigError(f"env.wrappers[{i}]={node}: allowed is {allowed}")


def _last_line(error: Exception) -> str:
    """Return the last line of an error, which in Hydra's is the cause."""
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__


def top_level(name: str = "train") -> set[str]:
    """Return the keys of a configuration in `configs/`: its groups and its top-level keys."""
    main = OmegaConf.load(Path(CONFIG_DIR) / f"{name}.yaml")
    groups = {str(key) for entry in main.defaults if not isinstance(entry, str) for key in entry}
    own = {str(key) for key in main} | {key for key in groups if not key.startswith("override ")}
    return own - {"defaults", "hydra", "experiment"}


def _targets(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((where, part) for where, part in _nodes(node, path) if "_target_" in part)


def _no_such_key(path: str, value: Any, allowed: str) -> ConfigError:
    """Return the error for an unknown key. For a renamed key the message has the new name."""
    given = f"{path}={value}"
    new = new_name(given)
    return ConfigError(f"{given}: renamed, use {new}" if new else f"{given}: no such key, allowed are {allowed}")


def check_call(path: str, target: Callable[..., Any], given: dict[str, Any]) -> None:
    """Check the arguments of a configuration node against the signature of its target.

    Floats such as 1e5 in place of a whole number are converted in `given`.

    Args:
        path: of the node; empty for the whole configuration.
        target: what is called.
        given: its arguments.

    Raises:
        ConfigError: for an unknown argument, a value of another type, and a number out of the range of its name.
    """
    parameters = inspect.signature(target).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    try:
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError):  # of a library whose annotations cannot be evaluated
        hints = {}
    for key, value in given.items():
        if key not in parameters and not open_ended:
            allowed = ", ".join(p for p in parameters if p not in ("self", "spec", "env", "args", "kwargs"))
            raise _no_such_key(_join(path, key), value, allowed)
        if key in hints and not (isinstance(value, dict) and "_target_" in value):
            given[key] = _checked_value(_join(path, key), value, hints[key])
            check_named_range(_join(path, key), given[key])


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def check_keys(cfg: DictConfig, name: str) -> None:
    """Check that the top-level keys of a command's configuration are those of its file in `configs/`.

    Whole numbers that are given as floats, such as jobs=2e0, are converted.

    Raises:
        ConfigError: for an unknown key, which Hydra accepts with a plus sign.
    """
    known = top_level(name)
    for key in cfg.keys() - known:
        raise _no_such_key(str(key), cfg[key], ", ".join(sorted(known)))
    for key in cfg:
        if not OmegaConf.is_missing(cfg, key) and isinstance(cfg[key], float):
            cfg[key] = whole(cfg[key])


def whole(value: Any) -> Any:
    """Return a float without a fraction as an int, and any other value unchanged."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _checked_value(key: str, value: Any, hint: Any) -> Any:
    """Return a value that fits a hint; a float without a fraction fits an int as well, and becomes one."""
    if _fits(value, hint):
        return value
    if _fits(converted := _wholes(value), hint):
        return converted
    name = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
    raise ConfigError(f"{key}={value}: allowed is {name}")


def _wholes(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_wholes(x) for x in value]
    return {k: _wholes(v) for k, v in value.items()} if isinstance(value, dict) else whole(value)


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a plain YAML value fits an annotation. Annotations that YAML cannot express fit any value."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, a) for a in args)
    if origin is Literal:
        return value in args
    if hint is None or hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, Real) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str)
    if origin in (list, tuple):
        inner = args[0] if args else Any
        return isinstance(value, list | tuple) and all(_fits(v, inner) for v in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(v, args[1]) for v in value.values())
    return True
