"""Choice of the engine in `make_env`, its errors, and the configurations that call it."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from worldmodel.envs import make_env

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("id", "given", "words"),
    [
        ("MiniGrid-DorKey-8x8-v0", {}, "env.id='MiniGrid-DorKey-8x8-v0'.*close.*MiniGrid-DoorKey-8x8-v0"),
        ("MiniGrid-DorKey-8x8-v0", {"engine": "gymnasium"}, "unknown to gymnasium.*MiniGrid-DoorKey-8x8-v0"),
        ("Pendulum-v9", {"engine": "envpool"}, "unknown to envpool"),
        ("CartPole-v7", {}, "env.id='CartPole-v7'.*CartPole-v1"),
        ("CartPole-v1", {"num_envs": 0}, "env.num_envs=0: allowed"),
        ("CartPole-v1", {"seed": -1}, "env.seed=-1: allowed"),
        ("CartPole-v1", {"engine": "fast"}, "env.engine=fast: allowed are auto, envpool, gymnasium"),
        ("CartPole-v1", {"vectorization": "x"}, "env.vectorization=x: allowed are sync, async"),
        ("CartPole-v1", {"timeout": 0}, "env.timeout=0: allowed are numbers above 0"),
        ("CartPole-v1", {"max_faults": -1}, "env.max_faults=-1: allowed are whole numbers from 0"),
        ("CartPole-v1", {"sticky": 1.0}, "env.sticky=1.0: allowed"),
        ("CartPole-v1", {"keys": ["image"]}, "env.keys=.'image'.*no keys"),
        ("CartPole-v1", {"null_action": 2}, "env.null_action=2: allowed are null and whole numbers from 0 to 1"),
        ("HalfCheetah-v5", {"null_action": 0}, "env.null_action=0: allowed is null"),
        ("MiniGrid-Empty-5x5-v0", {"keys": ["imago"]}, "'imago'.*allowed are direction, image"),
        ("MiniGrid-Empty-5x5-v0", {"keys": []}, "env.keys=.*allowed are"),
        ("MiniGrid-Empty-5x5-v0", {"sise": 3}, "envpool does not take .*sise"),
        ("CartPole-v1", {"engine": "gymnasium", "foo": 3}, "gymnasium cannot create it .*foo"),
    ],
)
def test_bad_input(id, given, words):
    with pytest.raises(ValueError, match=words) as caught:
        make_env(id, **{"num_envs": 2, **given})
    assert "\n" not in str(caught.value)


def test_without_envpool(monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    assert make_env("CartPole-v1", num_envs=2).resumable  # gymnasium's
    with pytest.raises(ValueError, match="envpool is not installed"):
        make_env("CartPole-v1", "envpool")


@pytest.mark.parametrize("name", sorted(p.stem for p in (CONFIGS / "env").glob("*.yaml") if p.stem != "base"))
def test_configs(name):
    if name == "crafter":
        pytest.importorskip("crafter")
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose(overrides=[f"+env={name}", "+seed=5", "env.num_envs=2"])
    env = instantiate(cfg.env)
    assert env.num_envs == 2 and cfg.env.seed == 5
    assert isinstance(env.reset(), dict) == (name == "dict")
    assert not env.step(torch.as_tensor(np.stack([env.act_space.sample()] * 2))).ignored.any()
    env.close()
