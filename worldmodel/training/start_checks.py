"""Checks before the first step of what a machine or a library supports, and the seed of all libraries."""

from __future__ import annotations

from typing import Any

import lightning as L
import numpy as np

from worldmodel.errors import ConfigError, SettingError

PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")
_SAME = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed", "None": "32-true"}  # Lightning's short forms


def check_precision(precision: Any) -> None:
    """Raise SettingError for a precision of all weights other than float32, which statistics and rollouts have."""
    name = str(precision)
    if _SAME.get(name, name) not in PRECISIONS and name.partition("-")[0] in ("16", "bf16", "64", "transformer"):
        raise SettingError("trainer.precision", precision, f"are {', '.join(PRECISIONS)}")


def check_compiler(device: str) -> None:
    """Raise ConfigError where `compile=true` finds no compiler.

    Args:
        device: type of the device, `cpu` (needs a C++ compiler) or `cuda` (needs Triton).
    """
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch.utils._triton import has_triton
    except ImportError:  # of another version of torch, whose own message is then raised at the first step
        return
    if device == "cuda":
        if not has_triton():
            raise ConfigError("compile=true: needs the package triton, allowed without is false")
        return
    try:
        get_cpp_compiler()
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"compile=true: needs a C++ compiler, allowed without is false ({reason})") from None


def is_of_compiler(error: BaseException) -> bool:
    """Return whether an error was raised by torch's compiler."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))


def seed_libraries(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators; NumPy's accepts 32 bits, to which a larger seed is hashed."""
    L.seed_everything(seed if seed < 2**32 else int(np.random.SeedSequence(seed).generate_state(1)[0]), verbose=False)
