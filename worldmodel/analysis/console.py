"""Progress of a command on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console


@contextmanager
def shown_progress(every_s: float = 10.0) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows a message on stderr: on a terminal in one line, elsewhere every `every_s` seconds."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("loading") as status:
            yield status.update
        return
    shown = time.monotonic()

    def show(message: str) -> None:
        nonlocal shown
        if time.monotonic() - shown >= every_s:
            shown = time.monotonic()
            print(message, file=sys.stderr, flush=True)

    yield show
