"""Composition of configurations in Python, with the same checks as on the command line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from worldmodel.errors import ConfigError
from worldmodel.training.config import CONFIG_DIR
from worldmodel.training.exit_codes import one_line
from worldmodel.training.free_text import quote_free_text
from worldmodel.training.renamed_keys import refuse_renamed


@contextmanager
def composing() -> Iterator[None]:
    """Initialise Hydra once for several compositions; within a Hydra command, use the command's configurations."""
    if GlobalHydra.instance().is_initialized():
        yield
    else:
        with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
            yield


def compose_config(overrides: Iterable[str], name: str = "train", purpose: str = "") -> DictConfig:
    """Return a configuration with overrides as on the command line.

    Args:
        overrides: for example `experiment=doorkey`.
        name: of the file in `configs/`.
        purpose: what the configuration is for; the error's message starts with it.

    Raises:
        ConfigError: in one line, for whatever Hydra or OmegaConf does not accept.
    """
    overrides = quote_free_text(overrides)
    try:
        with composing():
            refuse_renamed(overrides)
            return compose(name, overrides=overrides)
    except Exception as error:  # Hydra's and OmegaConf's errors have no common base class
        raise ConfigError(f"{purpose}: {one_line(error)}" if purpose else one_line(error)) from None
