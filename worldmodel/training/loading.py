"""Trained agents that act in a Gymnasium environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from worldmodel.envs.flat import one_line
from worldmodel.envs.spec import EnvSpec
from worldmodel.errors import ConfigError
from worldmodel.experience.actor import ActorOutput
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.training.build import build_agent, env_spec
from worldmodel.training.checkpoint import agent_state, fit_check, read_checkpoint
from worldmodel.training.config import bad_input
from worldmodel.training.hub import Shared


def load_agent(checkpoint: str | Path, config_dir: str | Path | None = None) -> tuple[CuriousAgent, DictConfig]:
    """Return the agent of a checkpoint in evaluation mode, and the configuration that it was trained with.

    Args:
        checkpoint: path of the file.
        config_dir: the `--config-dir` of the run, if it was trained with parts from outside of this project.

    Raises:
        ConfigError: for a file that cannot be read or does not fit.
    """
    saved = read_checkpoint(checkpoint, config_dir=config_dir)
    return assemble(saved["config"], saved.get("env_spec"), agent_state(saved), checkpoint)


def assemble(
    config: dict[str, Any], spaces: Any, state: dict[str, Tensor], where: str | Path
) -> tuple[CuriousAgent, DictConfig]:
    """Return an agent in evaluation mode and its configuration, from the contents of a file at `where`.

    The environment's package is not needed: `spaces` is the data of its `EnvSpec`.

    Raises:
        ConfigError: for a configuration from which no agent can be built, and for a state that does not fit.
    """
    if not isinstance(spaces, dict):
        raise ConfigError(f"checkpoint={where}: env_spec, the spaces of its environment, is missing")
    try:
        cfg = OmegaConf.create(config)
        with bad_input():
            module = build_agent(cfg, EnvSpec.from_dict(spaces, cfg.env.num_envs))
    except (LookupError, TypeError, AttributeError, OmegaConfBaseException) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"checkpoint={where}: no agent can be built from its configuration ({reason})") from error
    fit_check(state, module, where)
    module.load_state_dict(state)
    return module.eval(), cfg


def check_environment(agent: CuriousAgent, cfg: DictConfig, where: str | Path) -> None:
    """Check that the environment of a configuration can be created and has the spaces that an agent was trained with.

    Raises:
        ConfigError: if not.
    """
    with bad_input():
        found = env_spec(cfg)
    for name in ("obs_space", "act_space"):
        own, there = (one_line(getattr(spec, name)) for spec in (agent.env_spec, found))
        if own != there:
            raise ConfigError(f"checkpoint={where}: {name} {own}, but that of env.id={cfg.env.id} is {there}")


class Agent(Shared):
    """A trained agent in one environment, with a memory of the present episode. It does not need the environment.

        agent = Agent.load("runs/doorkey/.../checkpoints/last.ckpt")
        obs, _ = env.reset()
        agent.reset()
        act = agent.act(obs)

    `agent.save_pretrained(folder)`, `Agent.from_pretrained(folder or repository)` and `agent.push_to_hub(repository)`
    share it in files that cannot execute code; see `Shared`. The memory covers at least the last K steps of the
    configuration that the agent was trained with.
    """

    def __init__(self, module: CuriousAgent, cfg: DictConfig):
        assert module.env_spec is not None and module.env_spec.translation is not None
        self.module, self.cfg, self.translation = module, cfg, module.env_spec.translation
        self.reset()

    @classmethod
    def load(cls, checkpoint: str | Path, config_dir: str | Path | None = None) -> Agent:
        """Read a checkpoint file.

        Args:
            checkpoint: path of the file.
            config_dir: the `--config-dir` of the run, if it was trained with parts from outside of this project.

        Raises:
            ConfigError: when it cannot be read or does not fit.
        """
        return cls(*load_agent(checkpoint, config_dir))

    @classmethod
    def from_parts(cls, config: dict[str, Any], spaces: Any, state: dict[str, Tensor], where: str | Path) -> Agent:
        """See `Shared.from_parts`. Raises ConfigError."""
        return cls(*assemble(config, spaces, state, where))

    def reset(self) -> None:
        """Clear the memory at the start of an episode."""
        data = self.cfg.data
        self.actor = self.module.make_actor(1, data.context, data.rollout_length)
        self.output: ActorOutput | None = None

    def act(self, obs: Any, greedy: bool = False) -> Any:
        """Choose an action.

        Args:
            obs: a raw observation of the environment, nested as in its own space.
            greedy: take the most probable action instead of a sampled one.

        Returns:
            An action for `env.step` in the environment's own space and units: int, array, or a dict or tuple of those.

        Raises:
            ValueError: for an observation of another shape, or without an entry that the agent was trained on.
        """
        self.output = self.actor.observe(self.translation.read_one(obs), greedy)
        zero, no = torch.zeros(1), torch.zeros(1, dtype=torch.bool)
        self.actor.record_outcome(zero, no, no, no)
        return self.translation.write_one(self.output.act[0])
