"""Agents as safetensors and JSON: an exact round trip, and the refusal of damaged or unsafe files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny import tiny_agent
from safetensors.torch import load_file, save_file

from worldmodel.errors import ConfigError
from worldmodel.training.checkpoint import FORMAT
from worldmodel.training.loading import Agent


@pytest.fixture(scope="module")
def agent() -> Agent:
    torch.manual_seed(0)
    module, stream, cfg = tiny_agent("env=cartpole", "encoder=mlp", "encoder.hidden=[16]", "target=ema")
    agent = Agent(module.eval(), cfg)
    stream.close()
    return agent


@pytest.fixture
def folder(agent: Agent, tmp_path: Path) -> Path:
    agent.save_pretrained(tmp_path / "shared")
    return tmp_path / "shared"


def acts(agent: Agent) -> list[int]:
    torch.manual_seed(3)
    agent.reset()
    return [agent.act(obs) for obs in np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)]


def test_a_saved_agent_is_loaded_exactly(agent: Agent, folder: Path) -> None:
    assert {p.name for p in folder.iterdir()} == {"model.safetensors", "config.json", "README.md"}
    config = json.loads((folder / "config.json").read_text())
    assert config["run_dir"] is None and config["logger"] == {} and config["env"]["id"] == "CartPole-v1"
    assert "CartPole-v1" in (folder / "README.md").read_text()
    loaded = Agent.from_pretrained(folder)
    state = loaded.module.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in agent.module.state_dict().items())
    assert acts(loaded) == acts(agent) and len(set(acts(agent))) > 1 and not loaded.module.training
    loaded.save_pretrained(folder.parent / "again")
    for name in ("model.safetensors", "config.json"):
        assert (folder.parent / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_a_pushed_agent_is_loaded_exactly(agent: Agent, tmp_path: Path, monkeypatch) -> None:
    """The hub is a folder."""
    hub = tmp_path / "hub"

    class Api:
        def __init__(self, token=None):
            pass

        def create_repo(self, repo_id, private, exist_ok):
            return type("Repo", (), {"repo_id": repo_id})

        def upload_folder(self, *, repo_id, folder_path, **_):
            shutil.copytree(folder_path, hub / repo_id)
            return "url"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    assert agent.push_to_hub("someone/agent") == "url"
    for name in ("huggingface_hub.hub_mixin.hf_hub_download", "worldmodel.training.hub.hf_hub_download"):
        monkeypatch.setattr(name, lambda repo_id, filename, **_: str(hub / repo_id / filename))
    assert acts(Agent.from_pretrained("someone/agent")) == acts(agent)


def change(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def retarget(folder: Path) -> None:
    marker = folder.parent / "executed"
    change(folder, encoder={"_target_": "os.system", "command": f"touch {marker}"})


def other_shape(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    name = max(state, key=lambda k: state[k].numel())
    save_file(state | {name: state[name][:-1]}, folder / "model.safetensors")


BAD = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no model.safetensors"),
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json"),
    "cut weights": (lambda f: (f / "model.safetensors").write_bytes(b"12345678"), "not readable"),
    "a pickle": (lambda f: torch.save({"a": torch.zeros(1)}, f / "model.safetensors"), "not readable"),
    "not json": (lambda f: (f / "config.json").write_text("{"), "config.json: not readable"),
    "a list": (lambda f: (f / "config.json").write_text("[1]"), "config.json: not readable"),
    "other version": (lambda f: change(f, format=99), f"of format 99, this version reads {FORMAT}"),
    "no environment": (lambda f: change(f, env={}), "no agent can be built"),
    "no spaces": (lambda f: change(f, env_spec=None), "env_spec, the spaces of its environment, is missing"),
    "other spaces": (lambda f: change(f, env_spec={"obs_space": 1}), "no agent can be built"),
    "a resolver": (lambda f: change(f, name="${oc.env:HOME}"), "allowed are no resolvers"),
    "a call": (retarget, "_target_=os.system in its configuration, allowed are those in configs/"),
    "through our names": (
        lambda f: change(f, encoder={"_target_": "worldmodel.files.os.system", "command": "false"}), "allowed are those"
    ),
    "other shape": (other_shape, "of another architecture"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_damaged_and_unsafe_files_are_refused(folder: Path, what: str) -> None:
    damage, words = BAD[what]
    damage(folder)
    with pytest.raises(ConfigError, match=words) as caught:
        Agent.from_pretrained(folder)
    assert "\n" not in str(caught.value) and not (folder.parent / "executed").exists()
