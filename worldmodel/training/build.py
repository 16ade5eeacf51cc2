"""Construction of the agent and its data from a configuration, the only place that instantiates a `_target_`."""

from __future__ import annotations

import inspect
import math
from functools import partial
from typing import Any

import gymnasium as gym
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from worldmodel.curiosity import AgentSpec, Curiosity
from worldmodel.curiosity.blocks.features import with_convolutions
from worldmodel.envs import VectorEnv
from worldmodel.envs.flat import one_line
from worldmodel.envs.spec import EnvSpec
from worldmodel.envs.unit_box import UnitBox
from worldmodel.errors import ConfigError, SettingError, check_range
from worldmodel.experience.offline import Dataset, read_dataset
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.learner.updates import Batching
from worldmodel.model.targets import Codes
from worldmodel.model.world_model import WorldModel
from worldmodel.training.config import fill
from worldmodel.training.datamodule import SequenceData
from worldmodel.training.module import TrainingModule


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
    spec = EnvSpec(env.obs_space, env.act_space, cfg.env.num_envs, env.null_action, env.translation)
    env.close()
    return spec


def build_agent(cfg: DictConfig, spec: EnvSpec) -> CuriousAgent:
    """Return the agent of a configuration, for an environment with the given spaces.

    Raises:
        ValueError: for settings that a part or their combination does not allow.
    """
    make_encoder = instantiate(cfg.encoder)
    normalises = "normalise" in inspect.signature(make_encoder).parameters

    def new_encoder(space: gym.Space | None = None, **changes: Any) -> Any:
        if space is not None and normalises:  # not a space of raw observations, whose statistics the agent has
            changes = {"normalise": False} | changes
        return make_encoder(spec.obs_space if space is None else space, **changes)

    encoder, memory = new_encoder(), instantiate(cfg.memory)
    known = dict(spec._asdict(), encoder=encoder, make_encoder=new_encoder, memory=memory, dim=memory.dim)
    target = fill(instantiate(cfg.target), **known)
    known |= {"target": target, "latent": encoder.shape, "target_shape": target.shape}
    heads = {str(name): partial(fill, instantiate(node), **known) for name, node in cfg.heads.items()}
    model: WorldModel = fill(instantiate(cfg.model), **known, heads=heads)
    channels = cfg.get("signal_channels") or ()  # runs of before had none
    for width in channels:
        check_range("signal_channels", width, "[1, inf)", whole=True)
    signal_spec = AgentSpec(
        obs_space=spec.obs_space,
        act_space=spec.act_space,
        num_envs=spec.num_envs,
        encoder=encoder,
        make_encoder=with_convolutions(new_encoder, channels),
        target_shape=target.shape,
        memory_dim=memory.dim,
    )
    curiosity = instantiate(cfg.curiosity)(signal_spec)
    imagination = instantiate(cfg.policy.imagination) if "_target_" in cfg.policy.imagination else None
    if imagination is not None:
        check_imagination(cfg, model, curiosity)
        imagination.check(spec.act_space, curiosity)
    if cfg.policy.actor.memory_gradient:
        check_dropout(cfg, model)
    check_batch_norm(model)
    return CuriousAgent(
        model=model,
        policy=fill(instantiate(cfg.policy.actor), **known),
        curiosity=curiosity,
        reward_normalizer=fill(instantiate(cfg.reward), **known),
        return_scale=fill(instantiate(cfg.policy.return_scale), **known),
        objective=instantiate(cfg.policy.objective),
        imagination=imagination,
        weights=OmegaConf.to_container(cfg.weights),
        total_steps=cfg.total_steps,
        seed=cfg.seed,
        env_spec=spec,
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


def check_batch_norm(model: WorldModel) -> None:
    """Check that the outputs for a row do not depend on other rows.

    Raises:
        ConfigError: for batch normalisation with the statistics of a batch.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            group = name.split(".")[0]
            raise ConfigError(
                f"{group}: {type(module).__name__} in {name} mixes rows, allowed are LayerNorm, GroupNorm and "
                "batch normalisation that stays in evaluation mode"
            )


def check_dropout(cfg: DictConfig, model: WorldModel) -> None:
    """Check that the h of learning can equal that of acting, which is without dropout.

    Raises:
        ConfigError: for dropout in the encoder or the memory.
    """
    if cfg.memory.get("dropout"):
        raise SettingError("memory.dropout", cfg.memory.dropout, "with policy.actor.memory_gradient=true is 0")
    for group in ("encoder", "memory"):
        for name, module in getattr(model, group).named_modules():
            if rate := dropout_rate(module):
                raise ConfigError(
                    f"policy.actor.memory_gradient=true: allowed with dropout ({rate:g} in {group}.{name}) is false"
                )


def dropout_rate(module: nn.Module) -> float:
    """Return the rate of a dropout layer, or of one that a module applies itself; 0 without dropout."""
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p
    rates = (x for name, x in vars(module).items() if "drop" in name and isinstance(x, float))
    return max(rates, default=0.0)


def check_imagination(cfg: DictConfig, model: WorldModel, curiosity: Curiosity) -> None:
    """Check that the rest of a configuration supports learning in imagination.

    Raises:
        ValueError: without a head of observations, with a signal that needs real outcomes, with a policy gradient into
            the memory, or without a replay.
    """
    if "observation" not in cfg.heads and not isinstance(model.target, Codes):
        raise ValueError(
            f"policy.imagination with heads={sorted(map(str, cfg.heads))}: allowed are lists with observation, and "
            "any with target=codes"
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


def build_data(cfg: DictConfig, spec: EnvSpec | None = None) -> SequenceData:
    """Return the data of a configuration; each rank creates its environments when Lightning calls `setup`.

    Args:
        cfg: the configuration.
        spec: spaces of its environment, against which a dataset is checked; None: they are read from the environment.

    Raises:
        ValueError: for numbers of minibatches that do not divide the rollout, for a dataset that cannot be read or is
            of another environment, and for a policy that learns from recorded steps alone without a dataset.
    """
    offline: dict[str, Any] = {}
    if path := cfg.data.get("path"):
        dataset = read_dataset(path, cfg.env.get("keys"))
        check_dataset(dataset, env_spec(cfg) if spec is None else spec, path, cfg.env.id)
        offline = {"dataset": dataset, "num_streams": cfg.env.num_envs}
    elif getattr(get_class(cfg.policy.objective._target_), "offline", False):
        name = cfg.policy.objective._target_.rpartition(".")[2]
        raise ConfigError(f"policy.objective {name}: learns from recorded steps alone, allowed with it is data=offline")
    data: SequenceData = instantiate(cfg.data)(
        make_env=lambda seed: build_env(cfg, seed),
        seed=cfg.seed,
        make_metrics=lambda: instantiate(cfg.metrics),
        **offline,
    )
    check_batching(cfg, data.batching)
    return data


def check_dataset(dataset: Dataset, spec: EnvSpec, path: str, env_id: str) -> None:
    """Check that a dataset has the spaces of an environment, as published.

    Raises:
        ConfigError: for the first space that differs.
    """
    own = dataset.translation
    for name in ("obs_space", "act_space"):
        there, here = (_form(getattr(x, name)) for x in (own, spec))
        if there != here:
            recorded = f" (recorded in {dataset.env_id})" if dataset.env_id else ""
            raise ConfigError(f"data.path={path}{recorded}: {name} {there}, but that of env.id={env_id} is {here}")


def _form(space: gym.Space) -> str:
    """Return a space in one line; of continuous actions, the environment's own Box."""
    return one_line(space.raw if isinstance(space, UnitBox) else space)


def check_batching(cfg: DictConfig, batching: Batching) -> None:
    """Check that a rollout can be divided into the minibatches of a configuration.

    Raises:
        ValueError: for numbers that do not divide the rollout.
    """
    envs, steps, parts = cfg.env.num_envs, cfg.env.num_envs * cfg.data.rollout_length, batching.minibatches
    if cfg.policy.actor.memory_gradient:  # minibatches of whole sequences, the same for the policy and the world model
        if envs % parts:
            raise ValueError(f"data.minibatches={parts}: allowed are divisors of env.num_envs={envs}")
        if batching.model_every > 1:
            raise ValueError(f"data.model_every={batching.model_every}: allowed with policy.actor.memory_gradient is 1")
        if batching.model_batch not in (None, share := envs // parts):
            raise ValueError(
                f"data.model_batch={batching.model_batch}: allowed with policy.actor.memory_gradient are null and "
                f"{share}"
            )
    elif steps % parts:
        raise ValueError(
            f"data.minibatches={parts}: allowed are divisors of env.num_envs x data.rollout_length = {steps}"
        )
    fitting = [m for m in range(1, parts + 1) if parts % m == 0 and envs % (parts // m) == 0]
    if batching.model_every not in fitting:
        raise ValueError(
            f"data.model_every={batching.model_every}: allowed with data.minibatches={parts} and env.num_envs={envs} "
            f"are {', '.join(map(str, fitting))}"
        )
    share = envs * batching.model_every // parts
    if batching.model_batch is not None and batching.model_batch > share:
        raise ValueError(f"data.model_batch={batching.model_batch}: allowed are null and 1 to {share}")
