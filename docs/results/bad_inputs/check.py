"""Give every line of inputs.txt to its command, in one process, and write the answers into table.md.

python docs/results/bad_inputs/check.py
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra

from worldmodel import benchmark, evaluate, train

HERE = Path(__file__).resolve().parent
COMMANDS: dict[str, Callable[[], None]] = {"train": train.main, "evaluate": evaluate.main, "benchmark": benchmark.main}
SHORT = ("video=false", "logger=none", "total_steps=1")  # a run that begins by mistake ends soon


class Answer(NamedTuple):
    """The answer of a command to a bad input."""

    command: str
    arguments: str
    code: int
    text: str  # standard error
    seconds: float


def answers() -> Iterator[Answer]:
    """Give each line to its command, in an empty working directory."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for line in (HERE / "inputs.txt").read_text().splitlines():
            command, _, arguments = line.partition(" ")
            yield ask(command, arguments)


def ask(command: str, arguments: str) -> Answer:
    """Call a command with its arguments, which are divided at spaces outside of brackets."""
    began, code, error = time.perf_counter(), 0, io.StringIO()
    words = split(arguments)
    if command == "train":
        words += [word for word in SHORT if word.split("=")[0] not in arguments]
    with (
        mock.patch.object(sys, "argv", [f"worldmodel.{command}", *words]),
        mock.patch.object(Hydra, "get_mode", return_value=None),
        contextlib.redirect_stderr(error),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        try:
            COMMANDS[command]()
        except SystemExit as end:
            code = int(end.code or 0)
        except Exception as bug:  # a traceback, as a user would see it
            code = 1
            print(f"{type(bug).__name__}: {bug}", file=error)
        finally:
            GlobalHydra.instance().clear()
    return Answer(command, arguments, code, error.getvalue(), time.perf_counter() - began)


def split(arguments: str) -> list[str]:
    """Split at spaces outside of brackets."""
    words, depth = [""], 0
    for letter in arguments:
        depth += (letter in "[{") - (letter in "]}")
        if letter == " " and depth <= 0:
            words.append("")
        else:
            words[-1] += letter
    return [word for word in words if word]


def table(found: list[Answer]) -> str:
    """Return the answers as a table in Markdown."""
    rows = ["| command | answer |", "|---|---|"]
    for answer in found:
        text = answer.text.strip().removeprefix("error: ").replace("|", "\\|")
        rows.append(f"| `{answer.command} {answer.arguments}` | {text} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    found = list(answers())
    (HERE / "table.md").write_text(table(found))
    wrong = [x for x in found if x.code != 2 or x.text.count("\n") != 1 or not x.text.startswith("error: ")]
    for answer in wrong:
        print(f"{answer.command} {answer.arguments}: exit code {answer.code}\n{answer.text}")
    slowest = max(found, key=lambda x: x.seconds)
    print(f"{len(found)} inputs, {len(wrong)} wrong, {sum(x.seconds for x in found):.1f} s")
    print(f"slowest: {slowest.command} {slowest.arguments} {slowest.seconds:.1f} s")
    sys.exit(bool(wrong))
