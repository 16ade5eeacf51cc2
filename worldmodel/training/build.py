"""From a configuration to the agent and its data: the only place where `_target_`s are instantiated."""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium as gym
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from worldmodel.curiosity import Curiosity
from worldmodel.envs import VectorEnv
from worldmodel.model.world_model import WorldModel
from worldmodel.training.config import fill
from worldmodel.training.datamodule import SequenceData
from worldmodel.training.module import CuriousAgent


class EnvSpec(NamedTuple):
    """What the sizes of the agent depend on."""

    obs_space: gym.Space
    act_space: gym.Space
    num_envs: int
    null_action: int | None


def build_env(cfg: DictConfig, seed: int, **overrides: Any) -> VectorEnv:
    """The vector environment of a configuration's `env` group."""
    return instantiate(cfg.env, seed=seed, **overrides)


def env_spec(cfg: DictConfig) -> EnvSpec:
    """Read the spaces off one copy of the environment. Raises ValueError for `env.num_envs`."""
    if cfg.env.num_envs < 1:
        raise ValueError(f"env.num_envs={cfg.env.num_envs}: allowed are whole numbers from 1")
    env = build_env(cfg, seed=0, num_envs=1)
    spec = EnvSpec(env.obs_space, env.act_space, cfg.env.num_envs, env.null_action)
    env.close()
    return spec


def build_agent(cfg: DictConfig, spec: EnvSpec) -> CuriousAgent:
    """World model, curiosity, policy and optimiser of a configuration."""
    make_encoder = instantiate(cfg.encoder)

    def new_encoder(space: gym.Space = spec.obs_space, **changes: Any) -> Any:
        return make_encoder(space, **changes)

    encoder, memory = new_encoder(), instantiate(cfg.memory)
    known = dict(spec._asdict(), encoder=encoder, make_encoder=new_encoder, memory=memory, dim=memory.dim)
    target = fill(instantiate(cfg.target), **known)
    known |= {"target": target, "latent": encoder.shape, "target_shape": target.shape}
    known["complete"] = lambda part: fill(part, **known)  # for what is made of parts that want the same
    model: WorldModel = fill(instantiate(cfg.model), **known)
    curiosity = fill(instantiate(cfg.curiosity), **known)
    dream = instantiate(cfg.policy.get("dream"))
    if dream is not None:
        check_dream(cfg, curiosity)
        dream.check(spec.act_space, curiosity)
    return CuriousAgent(
        model=model,
        policy=fill(instantiate(cfg.policy.actor), **known),
        curiosity=curiosity,
        reward_scale=fill(instantiate(cfg.reward), **known),
        ppo=instantiate(cfg.policy.ppo),
        dream=dream,
        make_optimizer=instantiate(cfg.optimizer),
        weights=OmegaConf.to_container(cfg.weights),
        total_steps=cfg.total_steps,
        config=OmegaConf.to_container(cfg),
    )


def check_dream(cfg: DictConfig, curiosity: Curiosity) -> None:
    """Raises ValueError where nothing can be imagined, or what is imagined can't be paid or can't teach."""
    if not cfg.model.observation:
        raise ValueError("policy.dream with model.observation=false: allowed is true")
    if type(curiosity).foresee is Curiosity.foresee:
        name = type(curiosity).__name__
        raise ValueError(
            f"policy.dream with curiosity {name}, which looks at what came: allowed are disagreement, max, "
            "plan2explore, none"
        )
    if cfg.policy.actor.memory_gradient:
        raise ValueError("policy.actor.memory_gradient=true: allowed with policy.dream is false")
    if not cfg.data.replay_capacity:
        raise ValueError("data.replay_capacity=0: allowed with policy.dream are whole numbers from 1")


def build_data(cfg: DictConfig) -> SequenceData:
    """The data stream of a configuration; environments are made when Lightning sets it up, one set a rank."""
    data: SequenceData = instantiate(cfg.data)(make_env=lambda seed: build_env(cfg, seed), seed=cfg.seed)
    if cfg.env.num_envs % data.batch:
        raise ValueError(f"data.batch={data.batch}: allowed are divisors of env.num_envs={cfg.env.num_envs}")
    if (groups := cfg.env.num_envs // data.batch) % data.model_every:
        raise ValueError(
            f"data.model_every={data.model_every}: allowed are divisors of env.num_envs / data.batch = {groups}"
        )
    if cfg.policy.actor.memory_gradient:
        for key, value, allowed in (
            ("model_every", data.model_every, 1),
            ("model_batch", data.model_batch, data.batch),
        ):
            if value != allowed:
                raise ValueError(f"data.{key}={value}: allowed with policy.actor.memory_gradient is {allowed}")
    return data
