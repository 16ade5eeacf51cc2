"""Specs of agents, for signals without an agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym

from worldmodel.curiosity import AgentSpec


def agent_spec(make_encoder: Callable[..., Any], obs_space: gym.Space, act_space: gym.Space, **sizes: Any) -> AgentSpec:
    """The spec of an agent with one environment, a target of width 2 and a memory of width 3, or other `sizes`."""
    defaults = {"num_envs": 1, "encoder": make_encoder(), "target_shape": (2,), "memory_dim": 3}
    return AgentSpec(obs_space=obs_space, act_space=act_space, make_encoder=make_encoder, **defaults | sizes)
