"""Construction of the agent and its data from a configuration, the only place that instantiates a `_target_`."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from worldmodel.curiosity import AgentSpec, Curiosity
from worldmodel.envs import VectorEnv
from worldmodel.errors import check_range
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.model.world_model import WorldModel
from worldmodel.training.config import fill
from worldmodel.training.datamodule import SequenceData
from worldmodel.training.module import TrainingModule


class EnvSpec(NamedTuple):
    """Properties of the environment that the sizes of the agent depend on."""

    obs_space: gym.Space
    act_space: gym.Space
    num_envs: int
    null_action: int | None


def build_env(cfg: DictConfig, seed: int, **overrides: Any) -> VectorEnv:
    """Return the vector environment of a configuration's `env` group, with its wrappers as functions of one copy."""
    wrappers = [instantiate(node, _partial_=True) for node in cfg.env.get("wrappers") or []]
    return instantiate(cfg.env, seed=seed, **{"wrappers": wrappers, **overrides})


def env_spec(cfg: DictConfig) -> EnvSpec:
    """Return the spaces of one copy of the environment, which is closed again.

    Raises:
        SettingError: for a number of environments below 1.
    """
    check_range("env.num_envs", cfg.env.num_envs, "[1, inf)", whole=True)
    env = build_env(cfg, seed=0, num_envs=1)
    spec = EnvSpec(env.obs_space, env.act_space, cfg.env.num_envs, env.null_action)
    env.close()
    return spec


def build_agent(cfg: DictConfig, spec: EnvSpec) -> CuriousAgent:
    """Return the agent of a configuration, for an environment with the given spaces.

    Raises:
        ValueError: for settings that a part or their combination does not allow.
    """
    make_encoder = instantiate(cfg.encoder)

    def new_encoder(space: gym.Space = spec.obs_space, **changes: Any) -> Any:
        return make_encoder(space, **changes)

    encoder, memory = new_encoder(), instantiate(cfg.memory)
    known = dict(spec._asdict(), encoder=encoder, make_encoder=new_encoder, memory=memory, dim=memory.dim)
    target = fill(instantiate(cfg.target), **known)
    known |= {"target": target, "latent": encoder.shape, "target_shape": target.shape}
    heads = {str(name): partial(fill, instantiate(node), **known) for name, node in cfg.heads.items()}
    model: WorldModel = fill(instantiate(cfg.model), **known, heads=heads)
    signal_spec = AgentSpec(
        obs_space=spec.obs_space,
        act_space=spec.act_space,
        num_envs=spec.num_envs,
        encoder=encoder,
        make_encoder=new_encoder,
        target_shape=target.shape,
        memory_dim=memory.dim,
    )
    curiosity = instantiate(cfg.curiosity)(signal_spec)
    imagination = instantiate(cfg.policy.imagination) if "_target_" in cfg.policy.imagination else None
    if imagination is not None:
        check_imagination(cfg, curiosity)
        imagination.check(spec.act_space, curiosity)
    return CuriousAgent(
        model=model,
        policy=fill(instantiate(cfg.policy.actor), **known),
        curiosity=curiosity,
        reward_normalizer=fill(instantiate(cfg.reward), **known),
        objective=instantiate(cfg.policy.objective),
        imagination=imagination,
        weights=OmegaConf.to_container(cfg.weights),
        total_steps=cfg.total_steps,
        seed=cfg.seed,
    )


def build_module(cfg: DictConfig, agent: CuriousAgent, max_loss: float = math.inf) -> TrainingModule:
    """Return the Lightning module that trains an agent.

    Args:
        cfg: the configuration, which each checkpoint contains.
        agent: the agent.
        max_loss: a loss of this size counts as not finite.

    Raises:
        ValueError: for settings of the optimiser.
    """
    module = TrainingModule(agent, instantiate(cfg.optimizer), OmegaConf.to_container(cfg), max_loss)
    module.configure_optimizers()  # only for the errors that it raises
    return module


def check_imagination(cfg: DictConfig, curiosity: Curiosity) -> None:
    """Check that the rest of a configuration supports learning in imagination.

    Raises:
        ValueError: without an observation head, with a signal that needs real outcomes, with a policy gradient into the
            memory, or without a replay.
    """
    if "observation" not in cfg.heads:
        raise ValueError(
            f"policy.imagination with heads={sorted(map(str, cfg.heads))}: allowed are lists with observation"
        )
    if type(curiosity).predict_reward is Curiosity.predict_reward:
        name = type(curiosity).__name__
        raise ValueError(
            f"policy.imagination with curiosity {name}, which needs real outcomes: allowed are disagreement, max, "
            "plan2explore, none"
        )
    if cfg.policy.actor.memory_gradient:
        raise ValueError("policy.actor.memory_gradient=true: allowed with policy.imagination is false")
    if not cfg.data.replay_capacity:
        raise ValueError("data.replay_capacity=0: allowed with policy.imagination are whole numbers from 1")


def build_data(cfg: DictConfig) -> SequenceData:
    """Return the data of a configuration; each rank creates its environments when Lightning calls `setup`.

    Raises:
        ValueError: for batch sizes that do not divide the number of environments.
    """
    data: SequenceData = instantiate(cfg.data)(
        make_env=lambda seed: build_env(cfg, seed), seed=cfg.seed, make_metrics=lambda: instantiate(cfg.metrics)
    )
    batching = data.batching
    if cfg.env.num_envs % batching.batch:
        raise ValueError(f"data.batch={batching.batch}: allowed are divisors of env.num_envs={cfg.env.num_envs}")
    if (groups := cfg.env.num_envs // batching.batch) % batching.model_every:
        raise ValueError(
            f"data.model_every={batching.model_every}: allowed are divisors of env.num_envs / data.batch = {groups}"
        )
    if cfg.policy.actor.memory_gradient:
        for key, value, allowed in (
            ("model_every", batching.model_every, 1),
            ("model_batch", batching.model_batch, batching.batch),
        ):
            if value != allowed:
                raise ValueError(f"data.{key}={value}: allowed with policy.actor.memory_gradient is {allowed}")
    return data
