"""Files of datasets in Minari's format (Younis et al. 2024, https://minari.farama.org), local ones alone."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from worldmodel.envs.spaces import Translation
from worldmodel.errors import ConfigError
from worldmodel.experience.offline.dataset import Dataset
from worldmodel.types import Obs, map_obs

METADATA = "metadata.json"
BROKEN = (OSError, ValueError, LookupError, TypeError, AssertionError, RuntimeError, AttributeError, ImportError)
"""Errors of Minari, h5py, json and Pillow for damaged files."""


def _storage(key: str) -> Any:
    """Return Minari's class of files. Raises ConfigError without the package."""
    try:
        import h5py  # noqa: F401
        from minari.dataset.minari_storage import MinariStorage
    except ImportError as error:
        raise ConfigError(f"{key}: needs Minari ({error.name} is missing): pip install 'worldmodel[offline]'") from None
    return MinariStorage


def folder_of(path: str | Path) -> Path:
    """Return the folder with a dataset's files: DIR/data, as Minari lays it out, or DIR itself."""
    path = Path(path).expanduser()
    return path / "data" if (path / "data" / METADATA).is_file() else path


def read_dataset(path: str | Path, keys: Sequence[str] | None = None) -> Dataset:
    """Read a local dataset. Nothing is downloaded and no environment is created.

    Args:
        path: folder of the dataset, with or without its inner folder `data`.
        keys: entries of a Dict observation, as `env.keys`; without effect on other observations.

    Raises:
        ConfigError: in one line, for a missing or broken dataset, spaces that are not supported, and without Minari.
    """
    storage_class, folder, where = _storage(f"data.path={path}"), folder_of(path), f"data.path={path}"
    if not (folder / METADATA).is_file():
        raise ConfigError(f"{where}: no dataset of Minari ({METADATA} is missing there and in data/)")
    try:
        described = json.loads((folder / METADATA).read_text())
        if not {"observation_space", "action_space"} <= described.keys():
            raise ValueError("its spaces are not in it, only an environment that has them")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            storage = storage_class.read(folder)
        obs_space, act_space = storage.observation_space, storage.action_space
        translation = Translation(obs_space, act_space, keys if isinstance(obs_space, gym.spaces.Dict) else None)
        episodes = list(storage.get_episodes(range(storage.total_episodes)))
        spec = described.get("env_spec")
        env_id = described.get("env_id") or (json.loads(spec).get("id") if isinstance(spec, str) else None)
        return assemble(episodes, translation, env_id)
    except BROKEN as error:
        reason = " ".join((str(error) or type(error).__name__).split())[:200]
        raise ConfigError(f"{where}: not a readable dataset of Minari ({reason})") from error


def assemble(episodes: Iterable[Mapping[str, Any]], translation: Translation, env_id: str | None) -> Dataset:
    """Return the rows of recorded episodes.

    Args:
        episodes: mappings as Minari gives them: `observations` (n + 1, ...) and `actions`, `rewards`, `terminations`,
            `truncations` (n, ...).
        translation: of the recorded spaces.
        env_id: of the environment.

    Raises:
        ValueError: for lengths that do not agree, values that are not finite, and without a single step.
    """
    obs: list[Obs] = []
    parts: dict[str, list[Tensor]] = {name: [] for name in ("act", "rew", "end", "trunc", "mask")}
    lengths = []
    for k, episode in enumerate(episodes):
        n = len(episode["rewards"])
        if n == 0:
            continue
        seen, act = translation.read(episode["observations"]), translation.read_actions(episode["actions"])
        rew = torch.from_numpy(np.array(episode["rewards"], np.float32)).reshape(-1)
        end, trunc = (torch.from_numpy(np.array(episode[x], bool)) for x in ("terminations", "truncations"))
        sizes = {len(act), len(end), len(trunc), *(len(x) - 1 for x in _leaves(seen))}
        if sizes != {n}:
            raise ValueError(f"episode {k}: {n} rewards, but other lengths of observations, actions or ends")
        if not all(bool(torch.isfinite(x).all()) for x in (rew, act, *_leaves(seen)) if x.is_floating_point()):
            raise ValueError(f"episode {k}: a value that is not finite")
        if bool((end | trunc)[:-1].any()):
            raise ValueError(f"episode {k}: goes on after its end")
        trunc = trunc & ~end
        trunc[-1] |= not end[-1]
        obs.append(seen)
        real = torch.ones(n, dtype=torch.bool)
        for name, x in zip(parts, (act, rew, end, trunc, real), strict=True):
            parts[name].append(torch.cat([x, torch.zeros_like(x[:1])]))
        lengths.append(n + 1)
    if not lengths:
        raise ValueError("not a single step")
    first = torch.tensor([0, *lengths[:-1]]).cumsum(0)
    joined = {name: torch.cat(x) for name, x in parts.items()}
    return Dataset(
        translation=translation,
        obs=map_obs(lambda *x: torch.cat(x), *obs),
        first=first,
        env_id=env_id,
        **joined,
    )


def _leaves(obs: Obs) -> list[Tensor]:
    return list(obs.values()) if isinstance(obs, dict) else [obs]


class DatasetWriter:
    """Writer of a new dataset DIR/data. Arrays are stored without loss: images are not encoded as JPEG.

    Observations are stored as published (see `Translation`), actions in the environment's own space and units.

    Args:
        out: folder of the dataset, DIR.
        obs_space: published observation space.
        act_space: the environment's own action space.
        env_id: of the environment.
        metadata: further entries of metadata.json, plain data.

    Raises:
        ConfigError: without Minari, for a folder that already has a dataset, and, at the first episode, for one that
            cannot be written.
    """

    def __init__(
        self, out: str | Path, obs_space: gym.Space, act_space: gym.Space, env_id: str, metadata: dict[str, Any]
    ):
        self.new, self.out, self.folder = _storage(f"out={out}").new, out, Path(out) / "data"
        if (self.folder / METADATA).exists():
            raise ConfigError(f"out={out}: has a dataset already, allowed is another folder")
        self.obs_space, self.act_space, self.env_id, self.metadata = obs_space, act_space, env_id, metadata
        self.storage: Any = None

    def _begin(self) -> Any:
        """Create the files; called before the first episode, so that nothing is left if there is none."""
        import minari

        try:
            spec: Any = gym.spec(self.env_id)
            spec.to_json()
        except (gym.error.Error, ValueError, TypeError):
            spec = None  # of envpool alone, or with functions, which have no text
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            storage = self.new(self.folder, self.obs_space, self.act_space, spec, "hdf5", jpeg_encoding=False)
        except OSError as error:
            raise ConfigError(f"out={self.out}: not writable ({error.strerror})") from None
        named = {"dataset_id": f"worldmodel/{_word(self.env_id)}-v0", "minari_version": minari.__version__}
        storage.update_metadata({**named, "env_id": self.env_id, **self.metadata})
        return storage

    def add(self, obs: Obs, act: Any, rew: Tensor, end: Tensor, trunc: Tensor) -> None:
        """Append an episode of n steps.

        Args:
            obs: (n + 1, *obs_shape), the last one is the true final observation.
            act: (n, ...) actions in the environment's own space.
            rew: (n,) rewards; `end` and `trunc` (n,) bool.
            end: terminations.
            trunc: truncations.
        """
        from minari.data_collector import EpisodeBuffer

        episode = EpisodeBuffer(
            observations=map_obs(lambda x: x.cpu().numpy(), obs),
            actions=act,
            rewards=rew.cpu().numpy(),
            terminations=end.cpu().numpy(),
            truncations=trunc.cpu().numpy(),
            infos={},
        )
        self.storage = self.storage or self._begin()
        self.storage.update_episodes([episode])


def _word(text: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in text).strip("_")
