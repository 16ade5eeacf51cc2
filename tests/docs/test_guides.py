"""The examples of the guides: pasted into a folder outside the repository, they train with the guide's own command."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from helpers.runs import rows
from helpers.tiny import REPO, TINY

from worldmodel.errors import ConfigError
from worldmodel.training.loading import Agent

FILE = re.compile(r"^`(?P<path>\S+\.(?:py|yaml))`\n\n```(?:python|yaml)\n(?P<text>.*?)^```$", re.M | re.S)
COMMAND = re.compile(r"^python -m worldmodel\.train (--config-dir .*)$", re.M)
LACKING = {  # tiny sizes that the example's parts do not have
    "memory": ("memory.heads", "memory.depth"),
    "learner": ("memory.heads",),
    "environment": (),
}
COLUMNS = {"signal": "loss_distillation", "head": "loss_elapsed"}


class Guide(NamedTuple):
    """The code blocks of a guide: files by path, and the arguments of its command with `--config-dir`."""

    files: dict[str, str]
    arguments: list[str]
    text: str


def read_guide(name: str) -> Guide:
    """Read the example of docs/guides/<name>.md: each file's path stands alone in the line above its block."""
    text = (REPO / "docs" / "guides" / f"{name}.md").read_text()
    files = {match["path"]: match["text"] for match in FILE.finditer(text)}
    (command,) = COMMAND.findall(text)
    option, folder, *overrides = shlex.split(command)
    return Guide(files, [f"{option}={folder}", *overrides], text)


@pytest.fixture
def pasted(request, tmp_path: Path, monkeypatch) -> tuple[str, Guide]:
    """A guide whose files are in the working directory, from which `python -m` imports."""
    guide = read_guide(request.param)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for path, text in guide.files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        if path.endswith(".py"):
            monkeypatch.delitem(sys.modules, Path(path).stem, raising=False)
    return request.param, guide


def tiny(name: str) -> list[str]:
    """The small sizes that the parts of a guide's example have."""
    return [x for x in TINY if x.split("=")[0] not in LACKING.get(name, ())]


GUIDES = ("environment", "encoder", "signal", "head", "memory", "learner")
every_guide = pytest.mark.parametrize("pasted", GUIDES, indirect=True)


@every_guide
def test_the_example_trains(pasted, cli, tmp_path: Path) -> None:
    name, guide = pasted
    extra = ["policy.imagination.num_start_states=2", "data.replay_capacity=8"] if name == "learner" else []
    ended = cli(*guide.arguments, *extra, "total_steps=64", "run_dir=run", tiny=tiny(name))
    assert (ended.code, ended.err) == (0, "")
    (first, second) = rows(tmp_path / "run")
    assert second["env_steps"] == 64 and np.isfinite(second["loss_policy"])
    if column := COLUMNS.get(name):
        assert second[column] > 0 and second[column] != first[column]
    module = next(Path(path).stem for path in guide.files if path.endswith(".py"))
    assert sys.modules[module].__file__ == str(tmp_path / f"{module}.py")


@pytest.mark.parametrize("name", GUIDES)
def test_the_example_states_its_number_of_files(name: str) -> None:
    guide = read_guide(name)
    assert f"Files touched: {len(guide.files)}, none of them in the repository" in guide.text
    assert sorted(path.rpartition(".")[2] for path in guide.files) == ["py", "yaml"]


@pytest.mark.parametrize("pasted", ["signal"], indirect=True)
def test_a_run_with_an_own_part_can_be_resumed_and_loaded(pasted, cli, tmp_path: Path) -> None:
    _, guide = pasted
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert cli(*guide.arguments, "total_steps=32", "run_dir=run").code == 0
    more = ["total_steps=64", f"checkpoint={checkpoint}"]
    refused = cli(*more, tiny=[])
    assert refused.code == 2 and "_target_=my_signal.Distillation" in refused.err and "--config-dir" in refused.err
    ended = cli("--config-dir=conf", *more, tiny=[])
    assert (ended.code, ended.err) == (0, "")
    assert [row["env_steps"] for row in rows(tmp_path / "run")] == [32, 64]
    with pytest.raises(ConfigError, match="my_signal"):
        Agent.load(checkpoint)
    agent = Agent.load(checkpoint, config_dir="conf")
    assert type(agent.module.curiosity).__name__ == "Distillation"


@pytest.mark.parametrize("pasted", ["memory"], indirect=True)
def test_the_example_memory_acts_as_it_learns(pasted) -> None:
    torch.manual_seed(0)
    memory = importlib.import_module("my_memory").MovingAverage(dim=8)
    x, valid = torch.randn(2, 10, 8), torch.ones(2, 10, dtype=torch.bool)
    episode = torch.tensor([[0] * 4 + [1] * 6, [3] * 7 + [4] * 3])
    valid[0, :2], valid[1, 5] = False, False
    full = memory(x, episode, valid)
    for context in (0, 5):
        h, state = memory.prefill(x[:, :context], episode[:, :context], valid[:, :context], 10)
        steps = [memory.step(x[:, t], episode[:, t], valid[:, t], state) for t in range(context, 10)]
        torch.testing.assert_close(torch.cat([h, torch.stack(steps, 1)], 1)[valid], full[valid])
    changed = x.clone()
    changed[:, 6] += 1.0
    torch.testing.assert_close(memory(changed, episode, valid)[:, :6], full[:, :6])
    torch.testing.assert_close(memory(changed, episode, valid)[1, 7:], full[1, 7:])  # another episode
