"""Environments with unusual spaces under the default encoder: they train, or are refused in one line."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from helpers.tiny import joint_loss, minibatches, tiny_agent

from worldmodel.training.loading import Agent

VECTOR = Box(-1, 1, (4,), np.float32)
THREE = Discrete(3)


def pixels(*shape: int) -> Box:
    return Box(0, 255, shape, np.uint8)


SPACES = {
    "start": (Discrete(2, start=5), Discrete(2, start=10)),
    "one key": (Dict({"observation": VECTOR}), THREE),
    "thumbnail": (Dict({"image": pixels(8, 8, 3), "v": VECTOR}), THREE),
    "board": (Dict({"image": Box(0, 1, (8, 8, 12), np.uint8), "v": VECTOR}), THREE),
    "floats": (Dict({"image": Box(0, 1, (20, 20, 3), np.float32), "v": VECTOR}), THREE),
    "grey": (pixels(40, 40), THREE),
    "odd": (pixels(31, 32, 3), THREE),
    "stack": (pixels(4, 16, 16, 3), THREE),
    "matrix": (VECTOR, Box(-1, 1, (1, 4), np.float32)),
    "echo": (Discrete(5), Discrete(4)),
    "binary": (MultiBinary(3), MultiBinary(3)),
    "grid of choices": (MultiDiscrete([[2, 3], [4, 5]]), MultiDiscrete([[2, 3], [4, 5]])),
    "nested": (Dict({"a": Dict({"keys": VECTOR}), "b": Tuple([Discrete(3), pixels(16, 16)])}), Tuple([THREE, THREE])),
    "scalar": (Box(-1, 1, (), np.float32), Box(0, 5, (), np.float32)),
}


class OddSpaces(gym.Env):
    """World of samples, in episodes of five steps, that refuses actions outside of its space."""

    def __init__(self, kind: str):
        self.observation_space, self.action_space = SPACES[kind]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, act):
        assert self.action_space.contains(act), f"{act!r} not in {self.action_space}"
        self.t += 1
        return self.observation_space.sample(), 1.0, self.t == 5, False, {}


gym.register("OddSpaces-v0", entry_point=OddSpaces)
WORLD = ["env=cartpole", "env.id=OddSpaces-v0", "env.engine=gymnasium", "env.num_envs=2", "env.max_faults=0"]


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("parts", [["curiosity=rnd"], ["target=reconstruction", "curiosity=count"]], ids=str)
def test_an_update_with_any_space(kind: str, parts: list[str]) -> None:
    torch.manual_seed(0)
    agent, stream, cfg = tiny_agent(*WORLD, f"+env.kind={kind}", *parts)
    for batch in minibatches(agent, stream, cfg):
        loss = joint_loss(agent, batch)
        assert loss.isfinite()
    loss.backward()
    stream.close()
    obs, act = SPACES[kind]
    assert act.contains(Agent(agent.eval(), cfg).act(obs.sample()))
