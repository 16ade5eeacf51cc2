"""Configurations small enough for tests."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from worldmodel.experience.stream import ExperienceStream
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.training.build import build_agent, build_data, env_spec
from worldmodel.training.compose import compose_config
from worldmodel.training.datamodule import Minibatches
from worldmodel.types import Minibatch, Rollout

REPO = Path(__file__).parents[2]
TINY = [
    *(
        "env.num_envs=4",
        "data.rollout_length=8",
        "data.context=4",
        "data.minibatches=2",
        "data.epochs=2",
        "data.model_every=1",
    ),
    *("data.model_batch=null", "data.replay_batch=0", "data.replay_capacity=0", "memory.dim=16", "memory.depth=1"),
    *("memory.heads=2", "target.dim=8", "encoder.dim=16", "model.hidden=16", "policy.actor.hidden=16", "threads=1"),
    *("video=false", "logger=none"),
]
EASY = ["env.id=MiniGrid-Empty-5x5-v0", "+env.max_episode_steps=6"]  # episodes end within every rollout
LACKING = {
    "memory.heads": ("memory=gru", "memory=mlp", "experiment=chain_dream", "experiment=chain_plan"),
    "target.dim": ("target=codes", "target=ema", "target=sigreg", "target=vicreg", "target=reconstruction"),
}


def fitting(tiny: list[str], overrides: tuple[str, ...]) -> list[str]:
    """`tiny` and then `overrides`, without the sizes that the chosen memory or target does not have."""
    lacking = [key for key, choices in LACKING.items() if any(choice in overrides for choice in choices)]
    return [*(x for x in tiny if x.split("=")[0] not in lacking), *overrides]


def tiny_config(*overrides: str, tiny: list[str] = TINY) -> DictConfig:
    """The training configuration with small sizes and `overrides`, resolved."""
    return copy.deepcopy(_composed(*fitting(tiny, ("run_dir=unused", *overrides))))


@cache
def _composed(*overrides: str) -> DictConfig:
    """The composed configuration, cached: composing takes a third of a second."""
    cfg = compose_config(overrides)
    OmegaConf.resolve(cfg)
    return cfg


def tiny_agent(*overrides: str, tiny: list[str] = TINY) -> tuple[CuriousAgent, ExperienceStream, DictConfig]:
    """An untrained agent, its stream of experience, which the caller closes, and their configuration."""
    cfg = tiny_config(*overrides, tiny=tiny)
    agent = build_agent(cfg, env_spec(cfg))
    return agent, open_stream(agent, cfg), cfg


def open_stream(agent: CuriousAgent, cfg: DictConfig, rank: int = 0, ranks: int = 1) -> ExperienceStream:
    """The stream of experience of a configuration, with the agent acting in it."""
    stream = build_data(cfg).stream
    stream.open(agent.make_actor, rank=rank, ranks=ranks)
    return stream


def minibatches(agent: CuriousAgent, stream: ExperienceStream, cfg: DictConfig) -> Minibatches:
    """Minibatches of an update; each iteration is one update."""
    return Minibatches(agent, stream, build_data(cfg).batching)


def joint_loss(agent: CuriousAgent, batch: Minibatch) -> Tensor:
    """The weighted sum of all losses of a minibatch."""
    return agent.weighted_sum(agent.losses(batch).terms)


def clone(roll: Rollout) -> Rollout:
    """A deep copy of a rollout."""
    return copy.deepcopy(roll)
