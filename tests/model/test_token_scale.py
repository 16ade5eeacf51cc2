"""At initialisation, both halves of a token have a like spread over rows."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from helpers.tiny import TINY, tiny_agent
from torch import Tensor
from torch.nn import functional as F

from worldmodel.model.action_embedding import SPREAD, ActionEmbedding

FULL = [x for x in TINY if x.split(".")[0] not in ("encoder", "memory", "target", "policy", "model")]


def spread(x: Tensor) -> Tensor:
    """Root of the mean variance over rows: (rows, D) -> scalar."""
    return x.var(0).mean().sqrt()


@pytest.mark.parametrize(
    "experiment", [["experiment=cartpole"], ["experiment=mujoco"], ["experiment=doorkey"], ["experiment=pendulum"]]
)
@torch.no_grad()
def test_halves_of_a_token(experiment: list[str]) -> None:
    if experiment == ["experiment=mujoco"]:
        pytest.importorskip("mujoco")
    if experiment == ["experiment=pendulum"]:
        experiment = [*experiment, "env.kwargs.torque=1.0"]
    torch.manual_seed(0)
    agent, stream, _ = tiny_agent(*experiment, "data.rollout_length=64", "env.num_envs=8", tiny=FULL)
    roll = agent.score(stream.collector.collect())
    stream.close()
    model, real, act = agent.model, roll.new_steps(roll.mask), roll.new_steps(roll.act)
    z = model.encoder(roll.new_steps(roll.obs))[real].flatten(1)
    act = act.clamp(-1, 1) if act.is_floating_point() else act
    tokens = model.tokens(torch.zeros(len(z), *model.encoder.shape), act[real], torch.zeros(len(z), dtype=torch.bool))
    ratio = spread(tokens) / spread(F.linear(z, model.token.weight))
    assert 0.5 < ratio < 2


@pytest.mark.parametrize(
    "space", [gym.spaces.Discrete(2), gym.spaces.Discrete(18), gym.spaces.MultiDiscrete([2, 3, 5])]
)
@torch.no_grad()
def test_the_spread_does_not_depend_on_the_space(space: gym.Space) -> None:
    torch.manual_seed(0)
    embedding = ActionEmbedding(space, 4096)
    acts = torch.as_tensor(np.stack([space.sample() for _ in range(4000)]))
    torch.testing.assert_close(spread(embedding(acts)), torch.tensor(SPREAD), rtol=0.1, atol=0)
