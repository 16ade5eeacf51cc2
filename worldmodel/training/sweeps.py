"""Sweeps (`-m`): each job needs a separate folder."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from worldmodel.errors import ConfigError

FOLDERS = ("run_dir", "out")  # keys of the folders that a job writes to


def is_sweep(arguments: Sequence[str]) -> bool:
    """Return whether the arguments of a command ask for a sweep."""
    return "-m" in arguments or "--multirun" in arguments


def refuse_shared_folders(arguments: Sequence[str]) -> None:
    """Raise ConfigError if two jobs of a sweep would write to one folder.

    A folder that is not given is no problem: every run makes a new one.

    Args:
        arguments: of a command, which may have no sweep.
    """
    overrides = [x for x in arguments if re.match(r"[\w.@/+~]+=", x) and not x.startswith(("hydra.", "hydra/"))]
    if not is_sweep(arguments) or not any(x.partition("=")[0].lstrip("+") in FOLDERS for x in overrides):
        return
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
        (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    except (HydraException, ValueError, NotImplementedError):
        return  # not readable, which Hydra explains; or of another sweeper, whose jobs the folder's lock keeps apart
    seen: dict[tuple[str, str], int] = {}
    for number, job in enumerate(jobs):
        values = {x.partition("=")[0].lstrip("+"): x.partition("=")[2] for x in job}
        for key in values.keys() & set(FOLDERS):
            folder = _resolved(values[key], values, number)
            if folder != "null" and seen.setdefault((key, folder), number) != number:
                each = f"{key}={values[key].strip(chr(39))}/${{hydra:job.num}}"
                raise ConfigError(f"{key}={values[key]}: jobs of a sweep share it, allowed is a folder each, "
                                  f"for example '{each}'")  # fmt: skip


def _resolved(value: str, values: dict[str, str], number: int) -> str:
    """Return a folder with the job's values in place of `${key}`; other keys are equal in all jobs."""

    def replace(found: re.Match[str]) -> str:
        return str(number) if found[1] in ("hydra:job.num", "hydra:job.id") else values.get(found[1], found[0])

    return re.sub(r"\$\{([^{}]*)\}", replace, value)
