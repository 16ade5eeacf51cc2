"""`python -m worldmodel.reliability scale=1.0 out=docs parts=[killed,saves]`."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from worldmodel.command import run_command
from worldmodel.config import CONFIG_DIR, ConfigError
from worldmodel.files import write_json
from worldmodel.reliability.age import aged
from worldmodel.reliability.faults import faults
from worldmodel.reliability.kills import killed, saves, told
from worldmodel.reliability.malformed import malformed
from worldmodel.reliability.population import evolved
from worldmodel.reliability.ranks import ranks
from worldmodel.reliability.repeat import repeated
from worldmodel.run import RunRecord

Part = Callable[..., dict[str, Any]]
PARTS: dict[str, Part] = {
    "killed": killed,
    "told": told,
    "saves": saves,
    "faults": faults,
    "malformed": malformed,
    "repeated": repeated,
    "ranks": ranks,
    "age": aged,
    "population": evolved,
}
"""Each is called with a folder of its own and the scale, and returns figures that JSON can hold."""


def reliability(
    scale: float, out: Path, parts: list[str] | None = None, folders: list[str] | None = None
) -> dict[str, Any]:
    """Run the parts (None: all) at a scale of their numbers of trials; writes and returns reliability.json's content.

    Parts that aren't run keep the figures that they have there. `folders`: places on the file systems to save on.
    Raises ConfigError.
    """
    if scale <= 0:
        raise ConfigError(f"scale={scale}: allowed are numbers above 0")
    if unknown := sorted(set(parts or ()) - PARTS.keys()):
        raise ConfigError(f"parts={unknown}: allowed are {', '.join(PARTS)}")
    path = out / "reliability.json"
    report: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name in parts or PARTS:
        began = time.monotonic()
        with ExitStack() as stack:
            folder, *places = (
                Path(stack.enter_context(tempfile.TemporaryDirectory(dir=place))) for place in (None, *(folders or ()))
            )
            figures = PARTS[name](folder, scale, **({"folders": places} if name == "saves" and places else {}))
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
        made = RunRecord(out, seed=0).data
        about = {"scale": scale, "seconds": round(time.monotonic() - began, 1), "git": made["git"]}
        report[name] = {**about, "machine": made["machine"], "packages": made["packages"], "figures": figures}
        write_json(path, report)
        (out / "reliability.md").write_text(table(report))
    return report


def table(report: dict[str, Any]) -> str:
    """reliability.json in words."""
    lines = ["# Reliability", "", "Written by `python -m worldmodel.reliability`; the figures are those found."]
    for name, part in report.items():
        about = PARTS[name].__doc__.split("\n\n")[0] if name in PARTS else ""
        lines += ["", f"## {name}", "", " ".join(about.split()), "", "| figure | value |", "|---|---|"]
        lines += [f"| {key} | {value} |" for key, value in _rows(part["figures"], "") if not key.startswith("errors")]
        machine = part["machine"]
        lines += ["", f"scale {part['scale']}, {part['seconds']} s on {machine['cores']} cores ({machine['cpu']}), "
                  f"{part['git']}"]  # fmt: skip
    return "\n".join(lines) + "\n"


def _rows(node: Any, path: str) -> list[tuple[str, Any]]:
    if isinstance(node, dict):
        return [row for key, value in node.items() for row in _rows(value, f"{path}.{key}" if path else str(key))]
    return [(path, f"{node:.3g}" if isinstance(node, float) else node)]


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="reliability")
def _main(cfg: DictConfig) -> None:
    reliability(cfg.scale, Path(cfg.out), cfg.parts, cfg.folders)


def main() -> None:
    """Console entry point. Exit codes: 0 done, 2 bad input, 1 anything else."""
    run_command(_main)


if __name__ == "__main__":
    main()
