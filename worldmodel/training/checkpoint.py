"""Checkpoint files: plain data with a checksum, and one-line errors for files that do not fit."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import sys
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hydra.core.global_hydra import GlobalHydra
from lightning.fabric.plugins import CheckpointIO
from torch import nn

from worldmodel.errors import ConfigError
from worldmodel.files import atomic_write
from worldmodel.training.config import CONFIG_DIR

FORMAT = 4  # increased when older code cannot read what newer code writes
NEWEST_FIRST = ("last.ckpt", "previous.ckpt")
_MARK = b"\nsha256:"
_SEAL = len(_MARK) + 64 + 1
_NEEDED_TO_RESUME = ("epoch", "global_step", "loops", "optimizer_states", "lr_schedulers", "callbacks", "SequenceData")
_TARGET = re.compile(r"_target_: *([\w.]+)")
_WRAPPER = re.compile(r"(gymnasium|minigrid)\.wrappers\.(?!RecordVideo)[A-Z]\w*")


class SealedFiles(CheckpointIO):
    """Lightning's interface to checkpoint files, written atomically and with a checksum; see `atomic_write`.

    `save_checkpoint` raises OSError where the file cannot be written.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        data = buffer.getbuffer()
        seal = _MARK + hashlib.sha256(data).hexdigest().encode() + b"\n"  # readers of zip archives skip it

        Path(path).parent.mkdir(parents=True, exist_ok=True)
        atomic_write(Path(path), lambda file: file.writelines([data, seal]))

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> Any:
        return read_checkpoint(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: str | Path, to_go_on: bool = False, config_dir: str | Path | None = None) -> dict[str, Any]:
    """Load a checkpoint to the CPU without executing anything in it.

    Args:
        path: of the file.
        to_go_on: require everything that training needs to continue.
        config_dir: folder of further trusted configurations; see `check_trusted`.

    Raises:
        ConfigError: for a file that is missing, damaged, of another version or more than plain data, and for a
            configuration with a target that no trusted configuration has.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"checkpoint={path}: no such file")
    try:
        _check_seal(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # torch's message recommends weights_only=False
        raise ConfigError(f"checkpoint={path}: not readable (it holds more than plain data)") from None
    except (OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, OverflowError,
            zipfile.BadZipFile) as error:  # fmt: skip
        reason = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise ConfigError(f"checkpoint={path}: not readable ({reason})") from None
    if not isinstance(checkpoint, dict) or not {"state_dict", "config"} <= checkpoint.keys():
        raise ConfigError(f"checkpoint={path}: not a checkpoint of this project (needs state_dict and config)")
    if (version := checkpoint.get("format", 1)) != FORMAT:
        raise ConfigError(f"checkpoint={path}: of format {version}, this version reads {FORMAT}")
    if to_go_on and (missing := [key for key in _NEEDED_TO_RESUME if key not in checkpoint]):
        raise ConfigError(f"checkpoint={path}: training cannot resume from it (needs {', '.join(missing)})")
    check_trusted(checkpoint["config"], f"checkpoint={path}", config_dir)
    return checkpoint


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest valid checkpoint of a folder, None if the folder has no checkpoint; warn of damaged ones.

    Raises:
        ConfigError: if all checkpoints are damaged, because a new run would overwrite them.
    """
    damage = None
    for path in (folder / name for name in NEWEST_FIRST):
        if not path.exists():
            continue
        try:
            read_checkpoint(path, to_go_on=True)
            return path
        except ConfigError as error:
            damage = error
            print(f"warning: {error}", file=sys.stderr)
    if damage:
        raise damage
    return None


def check_trusted(config: Any, where: str, config_dir: str | Path | None = None) -> None:
    """Raise ConfigError unless a stored configuration is a plain mapping whose targets are all trusted.

    `_target_` alone could name any function. Trusted are the targets in the files of configs/, of the folders on the
    running command's search path (`--config-dir`), of `config_dir` and of the command line itself, and the wrappers of
    Gymnasium and MiniGrid except the one that writes files.
    """
    if not isinstance(config, dict):
        raise ConfigError(f"{where}: its configuration is a {type(config).__name__}, allowed is a mapping")
    trusted = frozenset(_TARGET.findall(" ".join(sys.argv))).union(*map(_targets_in, _config_folders(config_dir)))
    for key, value in _leaves(config):
        if key == "_target_" and value not in trusted and not _WRAPPER.fullmatch(str(value)):
            raise ConfigError(
                f"{where}: _target_={value} in its configuration, allowed are those in configs/, in --config-dir "
                "and on the command line"
            )
        if isinstance(value, str) and re.search(r"\$\{[^}]*:", value):
            raise ConfigError(f"{where}: {key}={value} in its configuration, allowed are no resolvers")


def _config_folders(config_dir: str | Path | None) -> list[str]:
    """Folders of trusted configurations: the project's own, those of the running Hydra command, and `config_dir`."""
    folders = [CONFIG_DIR] if config_dir is None else [CONFIG_DIR, str(config_dir)]
    if GlobalHydra.instance().is_initialized():
        sources = GlobalHydra.instance().config_loader().get_search_path().get_path()
        folders += [s.path.removeprefix("file://") for s in sources if s.path and s.path.startswith("file://")]
    return folders


def _leaves(node: Any, key: Any = None) -> Iterator[tuple[Any, Any]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _leaves(value, name)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _leaves(value, key)
    else:
        yield key, node


@cache
def _targets_in(folder: str) -> frozenset[str]:
    """Targets that the YAML files in a folder have."""
    texts = (path.read_text() for path in Path(folder).rglob("*.yaml"))
    return frozenset(target for text in texts for target in _TARGET.findall(text))


def _check_seal(path: Path) -> None:
    """Raise ValueError for a damaged file. A file without a seal is checked by the checksums of the zip archive."""
    with path.open("rb") as file:
        left = max(file.seek(0, io.SEEK_END) - _SEAL, 0)
        file.seek(left)
        seal = file.read()
        if seal.startswith(_MARK):
            file.seek(0)
            digest = hashlib.sha256()
            while block := file.read(min(left, 2**20)):
                digest.update(block)
                left -= len(block)
            if seal[len(_MARK) :] != digest.hexdigest().encode() + b"\n":
                raise ValueError("damaged: its checksum differs")
        elif seal[-22:-18] != b"PK\x05\x06":
            raise ValueError("damaged or cut off: the end of a checkpoint is missing")
        else:
            with zipfile.ZipFile(path) as archive:
                if bad := archive.testzip():
                    raise ValueError(f"damaged: the checksum of {bad} differs")


def agent_state(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the state of the agent from that of the Lightning module that trained it."""
    state = checkpoint["state_dict"]
    if not isinstance(state, dict):
        return state
    return {str(name).removeprefix("agent."): value for name, value in state.items()}


def fit_check(state: Any, module: nn.Module, path: str | Path) -> None:
    """Check that `state` has exactly the names and shapes of a module's tensors.

    Raises:
        ConfigError: for the first name that differs.
    """
    if not isinstance(state, dict):
        raise ConfigError(f"checkpoint={path}: its state_dict is a {type(state).__name__}, allowed is a mapping")
    own = module.state_dict()
    for name in sorted(own.keys() | state.keys(), key=str):
        there, here = (_form(d[name]) if name in d else "missing" for d in (state, own))
        if there != here:
            raise ConfigError(
                f"checkpoint={path}: of another architecture, {name} is {there} there and {here} in this configuration"
            )


def _form(value: Any) -> Any:
    """Return the properties that must agree: the shape, with `complex` for complex numbers; else the type."""
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    return (*value.shape, "complex") if value.is_complex() else tuple(value.shape)


def run_dir_of(path: str | Path) -> Path:
    """Return the run folder that a checkpoint belongs to: DIR for DIR/checkpoints/last.ckpt."""
    path = Path(path).resolve()
    return path.parent.parent if path.parent.name == "checkpoints" else path.parent
