"""Exit codes and one-line errors, the same for every command."""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
from collections.abc import Callable
from contextlib import ContextDecorator

from hydra.core.override_parser.types import Quote
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from worldmodel.envs import TooManyFaults
from worldmodel.errors import UNWRITABLE, ConfigError, NonFiniteLoss, UnwritableError
from worldmodel.interruption import Interrupted, interruptible
from worldmodel.training.free_text import quote_free_text, with_quotes
from worldmodel.training.renamed_keys import refuse_renamed
from worldmodel.training.sweeps import is_sweep, refuse_shared_folders


def run_command(main: Callable[[], None], hydra: bool = True) -> None:
    """Run a command; bad input ends it with one line on stderr and exit code 2.

    Args:
        main: of the command.
        hydra: it reads its arguments with Hydra.
    """
    if not sys.flags.safe_path and os.getcwd() not in sys.path:  # as with python -m, also for console scripts
        sys.path.insert(0, os.getcwd())
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra raises its errors instead of printing them
    for library in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(library).setLevel(logging.ERROR)
    with interruptible(), bad_input_exits():
        refuse_renamed(sys.argv[1:])
        if hydra:
            sys.argv[1:] = quote_free_text(sys.argv[1:], is_sweep(sys.argv[1:]))
            refuse_shared_folders(sys.argv[1:])
        main()


class bad_input_exits(ContextDecorator):
    """Context in which bad input ends the process with one line on stderr and exit code 2.

    Only the first rank of a machine prints the line. Environments that fail too often and files that cannot be written
    end the process with one line and exit code 1, on any rank. A signal ends it with `Interrupted.code`, without one.

    As a decorator directly below `hydra.main` it prevents Hydra's own message about a failed job. A decorated function
    can be pickled, as launchers of jobs on other machines require.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, HydraException | OmegaConfBaseException | ConfigError | NonFiniteLoss):
            if int(os.environ.get("LOCAL_RANK") or 0) == 0:
                print(f"error: {one_line(error)}", file=sys.stderr)
            sys.exit(2)
        if isinstance(error, Interrupted):
            sys.exit(error.code)
        if isinstance(error, OSError) and error.errno in UNWRITABLE:
            error = UnwritableError(f"{error.filename or 'a file'}: {error.strerror}")
        if isinstance(error, TooManyFaults | UnwritableError):
            print(f"error: {one_line(error)}", file=sys.stderr)
            sys.exit(1)


def not_readable(override: str) -> str:
    """Return the message for an override outside of Hydra's grammar, with the quotes that make it a text."""
    key, equals, value = override.partition("=")
    message = f"{override}: not readable, allowed is key=value"
    if not equals or not re.fullmatch(r"[+~]*[\w./@]+", key):
        return message
    return f"{message}, and for a text {shlex.quote(f'{key}={with_quotes(value, Quote.double)}')}"


def one_line(error: BaseException) -> str:
    """Return an error's message without line breaks.

    A message of Hydra or OmegaConf that lacks the key, the value or the choices is replaced by one that has them.
    """
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return f"{group}={option}: no such option, allowed are {', '.join(error.options)}"
    if isinstance(error, OverrideParseException):
        return not_readable(str(error.override))
    cause = error.__cause__
    if isinstance(error, HydraException) and isinstance(cause, ValueError | OmegaConfBaseException):
        error = cause
    if isinstance(error, ConfigKeyError | ConfigAttributeError) and error.parent_node is not None:
        allowed = [str(key) for key in error.parent_node if key != "hydra" and str(key)[0] != "_"]
        given = next((a for a in sys.argv if a.partition("=")[0] == error.full_key), error.full_key)
        if error.full_key.startswith("env."):
            return f"{given}: no such key, {_of_env(error, given, allowed)}"
        return f"{given}: no such key, allowed are {', '.join(allowed) or 'none'}"
    return " ".join(str(error).split())


def _of_env(error: ConfigKeyError | ConfigAttributeError, given: str, allowed: list[str]) -> str:
    """Return the advice for an unknown key of `env`, which may be an argument of the environment."""
    path, _, value = given.partition("=")
    if path.startswith("env.kwargs."):
        return f"a new argument of the environment needs a plus: +{given}"
    argument = path.removeprefix("env.")
    known = argument in (error.parent_node.get("kwargs") or {})
    use = f"{'' if known else '+'}env.kwargs.{argument}{'=' * ('=' in given)}{value}"
    return f"an argument of the environment is {use}; allowed are {', '.join(allowed)}"
