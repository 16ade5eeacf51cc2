"""Exit codes and one-line errors, the same for every command."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from worldmodel.config import ConfigError
from worldmodel.module import NonFiniteLoss


def run_command(main: Callable[[], None]) -> None:
    """Run a command; bad input ends it with one line on stderr and exit code 2."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hydra's errors reach us instead of being printed by it
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    try:
        main()
    except (HydraException, OmegaConfBaseException, ConfigError, NonFiniteLoss) as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        sys.exit(2)


def _one_line(error: BaseException) -> str:
    """The message without line breaks; what hydra wraps is unwrapped."""
    cause = error.__cause__
    if isinstance(error, HydraException) and isinstance(cause, ValueError | OmegaConfBaseException):
        error = cause
    return " ".join(str(error).split())
