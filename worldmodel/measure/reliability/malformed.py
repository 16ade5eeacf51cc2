"""Checkpoint files that must be refused: truncated, damaged, of another version, or with executable content."""

from __future__ import annotations

import copy
import io
import os
import pickle
import random
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from worldmodel.errors import ConfigError
from worldmodel.measure.reliability.runs import small_config, small_run
from worldmodel.training.build import build_agent, env_spec
from worldmodel.training.checkpoint import FORMAT, SealedFiles, agent_state, fit_check, read_checkpoint


def malformed(folder: Path, scale: float) -> dict[str, Any]:
    """Malformed files made from one valid checkpoint, which itself is accepted.

    Their number does not depend on the scale.
    """
    good = small_run(folder / "run") / "checkpoints" / "last.ckpt"
    cfg = small_config()
    module = build_agent(cfg, env_spec(cfg))
    marker = folder / "executed"
    accepted, errors = [], {}
    for path in [good, *corpus(good, folder / "corpus", marker)]:
        try:
            fit_check(agent_state(read_checkpoint(path, to_go_on=True)), module, path)
            accepted.append(path.stem)
        except ConfigError as error:
            errors[path.stem] = str(error).replace(str(path), path.name)
    return {
        "files": len(errors) + len(accepted) - 1,
        "rejected_with_a_named_error": sum(
            "\n" not in text and text.startswith("checkpoint=") for text in errors.values()
        ),
        "accepted": [name for name in accepted if name != good.stem],
        "good_file_accepted": good.stem in accepted,
        "code_executed": int(marker.exists()),
        "errors": errors,
    }


class Bomb:
    """Object that creates a file when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


class Evaluated(Bomb):
    """`Bomb` with another function."""

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"open({str(self.marker)!r}, 'w').close()",)


def corpus(good: Path, folder: Path, marker: Path) -> Iterator[Path]:
    """Write malformed files into a folder, one of each kind; `marker` exists afterwards if any content was executed."""
    folder.mkdir(parents=True, exist_ok=True)
    for make in (_cut, _flipped, _foreign, _bombs):
        for name, data in make(good.read_bytes(), marker):
            (folder / f"{name}.ckpt").write_bytes(data)
            yield folder / f"{name}.ckpt"
    for name, checkpoint in _misfits(read_checkpoint(good), marker):  # complete and sealed, but with wrong content
        SealedFiles().save_checkpoint(checkpoint, folder / f"{name}.ckpt")
        yield folder / f"{name}.ckpt"


def _cut(data: bytes, marker: Path) -> Iterator[tuple[str, bytes]]:
    for percent in (0, 1, 10, 50, 90, 99):
        yield f"cut_at_{percent}_percent", data[: len(data) * percent // 100]
    yield "cut_by_a_byte", data[:-1]
    yield "cut_in_the_seal", data[:-40]
    yield "without_its_beginning", data[1000:]
    yield "with_a_hole", data[: len(data) // 3] + bytes(4096) + data[len(data) // 3 + 4096 :]
    yield "with_a_tail", data + b"tail"


def _flipped(data: bytes, marker: Path) -> Iterator[tuple[str, bytes]]:
    draw = random.Random(0)
    places = {"first_byte": 0, "mark": len(data) - 70, "digest": len(data) - 10}
    places |= {f"byte_{i}": draw.randrange(len(data)) for i in range(6)}
    for name, place in places.items():
        yield f"flipped_{name}", data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :]


def _foreign(data: bytes, marker: Path) -> Iterator[tuple[str, bytes]]:
    yield "text", b"not a checkpoint\n" * 100
    yield "zeros", bytes(10_000)
    yield "noise", random.Random(0).randbytes(10_000)
    yield "page", b"<!DOCTYPE html><html><body>404</body></html>"
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
        archive.writestr("a.txt", "nothing")
    yield "zip", buffer.getvalue()
    with tarfile.open(fileobj=(buffer := io.BytesIO()), mode="w"):
        pass
    yield "tar", buffer.getvalue()


def _bombs(data: bytes, marker: Path) -> Iterator[tuple[str, bytes]]:
    yield "bomb_raw", pickle.dumps(Bomb(marker))
    yield "bomb_in_a_dict", pickle.dumps({"state_dict": {}, "config": Evaluated(marker)})
    for name, old in (("bomb_in_a_zip", False), ("bomb_of_the_old_format", True)):
        content = {"state_dict": {}, "config": Bomb(marker)}
        torch.save(content, buffer := io.BytesIO(), _use_new_zipfile_serialization=not old)
        yield name, buffer.getvalue()


def _misfits(good: dict[str, Any], marker: Path) -> Iterator[tuple[str, Any]]:
    def having(**changes: Any) -> dict[str, Any]:
        return copy.deepcopy(good) | changes

    state, config = good["state_dict"], good["config"]
    name = max(state, key=lambda key: state[key].numel())
    without = {k: v for k, v in state.items() if k != name}
    yield "sealed_bomb", having(SequenceData=Bomb(marker))
    yield "sealed_bomb_beside_the_weights", having(state_dict=state | {"bomb": Evaluated(marker)})
    yield "a_list", [good]
    yield "a_tensor", torch.zeros(3)
    yield "of_a_later_format", having(format=FORMAT + 1)
    yield "of_an_unknown_format", having(format="x")
    for key in ("state_dict", "config", "optimizer_states", "SequenceData"):
        yield f"without_{key}", {k: v for k, v in good.items() if k != key}
    yield "weights_as_a_list", having(state_dict=list(state.values()))
    yield "configuration_as_text", having(config="env: cartpole")
    yield "another_shape", having(state_dict=state | {name: state[name][:-1]})
    yield "another_rank", having(state_dict=state | {name: state[name][None]})
    yield "complex_weights", having(state_dict=state | {name: state[name].to(torch.complex64)})
    yield "weights_missing", having(state_dict=without)
    yield "weights_too_many", having(state_dict=state | {"model.more": torch.zeros(1)})
    yield "weights_as_text", having(state_dict=state | {name: "zeros"})
    call = {"_target_": "os.system", "command": f"touch {marker}"}
    yield "a_call", having(config=config | {"encoder": call})
    yield "a_call_in_a_list", having(config=config | {"weights": [[call]]})
    call = call | {"_target_": "worldmodel.files.os.system"}
    yield "a_call_through_our_names", having(config=config | {"env": call})
    yield "a_resolver", having(config=config | {"name": "${oc.env:HOME}"})
