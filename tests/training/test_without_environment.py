"""An agent acts where the package of its environment cannot be imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.runs import run_main
from helpers.tiny import REPO, TINY

from worldmodel.training.loading import Agent

WORLD = """
import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, Tuple


class Private(gym.Env):
    observation_space = Dict({"a": Dict({"v": Box(-1, 1, (2,), np.float32)}), "n": Discrete(3, start=4)})
    action_space = Tuple([Discrete(2, start=7), Discrete(3)])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, act):
        assert self.action_space.contains(act)
        self.t += 1
        return self.observation_space.sample(), 1.0, self.t == 5, False, {}


gym.register("Private-v0", entry_point=Private)
"""
ACT = """
import json, sys
import numpy as np, torch
from worldmodel import Agent
checkpoint, shared = sys.argv[1:]
found = []
for agent in (Agent.load(checkpoint), Agent.from_pretrained(shared)):
    torch.manual_seed(0)
    found.append([agent.act({"a": {"v": np.float32([0.1 * i, 0])}, "n": 4 + i % 3}) for i in range(20)])
assert "a_private_package" not in sys.modules
print(json.dumps(found))
"""


def test_an_agent_acts_without_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "a_private_package.py"
    package.write_text(WORLD)
    monkeypatch.syspath_prepend(tmp_path)
    run = tmp_path / "run"
    world = ["env=cartpole", "env.id=a_private_package:Private-v0", "env.engine=gymnasium"]
    assert run_main([*TINY, *world, "total_steps=32", f"run_dir={run}"]) == 0
    package.unlink()
    sys.modules.pop("a_private_package")
    checkpoint, shared = run / "checkpoints" / "last.ckpt", tmp_path / "shared"
    with pytest.raises(ImportError):
        __import__("a_private_package")
    Agent.load(checkpoint).save_pretrained(shared)
    command = [sys.executable, "-c", ACT, str(checkpoint), str(shared)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPO)
    loaded, pretrained = json.loads(answer.stdout)
    assert loaded == pretrained and {tuple(act) for act in loaded} <= {(a, b) for a in (7, 8) for b in (0, 1, 2)}
    assert len({tuple(act) for act in loaded}) > 2
    agent = Agent.load(checkpoint)
    torch.manual_seed(0)
    acts = [agent.act({"a": {"v": np.float32([0.1 * i, 0])}, "n": 4 + i % 3}) for i in range(20)]
    assert [list(act) for act in acts] == loaded and all(type(x) is int for act in acts for x in act)
