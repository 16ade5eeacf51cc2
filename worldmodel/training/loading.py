"""Trained agents that act in a Gymnasium environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from worldmodel.envs.unit_box import UnitBox
from worldmodel.errors import ConfigError
from worldmodel.experience.actor import ActorOutput
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.training.build import build_agent, env_spec
from worldmodel.training.checkpoint import agent_state, fit_check, read_checkpoint
from worldmodel.training.config import bad_input
from worldmodel.training.hub import Shared
from worldmodel.types import Obs, map_obs


def load_agent(checkpoint: str | Path, config_dir: str | Path | None = None) -> tuple[CuriousAgent, DictConfig]:
    """Return the agent of a checkpoint in evaluation mode, and the configuration that it was trained with.

    Args:
        checkpoint: path of the file.
        config_dir: the `--config-dir` of the run, if it was trained with parts from outside of this project.

    Raises:
        ConfigError: for a file that cannot be read or does not fit.
    """
    saved = read_checkpoint(checkpoint, config_dir=config_dir)
    return assemble(saved["config"], agent_state(saved), checkpoint)


def assemble(config: dict[str, Any], state: dict[str, Tensor], where: str | Path) -> tuple[CuriousAgent, DictConfig]:
    """Return an agent in evaluation mode and its configuration, both from the contents of a file at `where`.

    Raises:
        ConfigError: for a configuration from which no agent can be built, and for a state that does not fit.
    """
    try:
        cfg = OmegaConf.create(config)
        with bad_input():
            module = build_agent(cfg, env_spec(cfg))
    except (LookupError, TypeError, AttributeError, OmegaConfBaseException) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"checkpoint={where}: no agent can be built from its configuration ({reason})") from error
    fit_check(state, module, where)
    module.load_state_dict(state)
    return module.eval(), cfg


class Agent(Shared):
    """A trained agent in one Gymnasium environment, with a memory of the present episode.

        agent = Agent.load("runs/doorkey/.../checkpoints/last.ckpt")
        obs, _ = env.reset()
        agent.reset()
        act = agent.act(obs)

    `agent.save_pretrained(folder)`, `Agent.from_pretrained(folder or repository)` and `agent.push_to_hub(repository)`
    share it in files that cannot execute code; see `Shared`. The memory covers at least the last K steps of the
    configuration that the agent was trained with.
    """

    def __init__(self, module: CuriousAgent, cfg: DictConfig, obs_space: gym.Space, act_space: gym.Space):
        self.module, self.cfg, self.act_space = module, cfg, act_space
        # keys of a raw dict observation that the agent was trained on
        self.keys = list(obs_space) if isinstance(obs_space, gym.spaces.Dict) else cfg.env.get("keys")
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
        return cls._with(*load_agent(checkpoint, config_dir))

    @classmethod
    def from_parts(cls, config: dict[str, Any], state: dict[str, Tensor], where: str | Path) -> Agent:
        """See `Shared.from_parts`. Raises ConfigError."""
        return cls._with(*assemble(config, state, where))

    @classmethod
    def _with(cls, module: CuriousAgent, cfg: DictConfig) -> Agent:
        spec = env_spec(cfg)
        return cls(module, cfg, spec.obs_space, spec.act_space)

    def reset(self) -> None:
        """Clear the memory at the start of an episode."""
        data = self.cfg.data
        self.actor = self.module.make_actor(1, data.context, data.rollout_length)
        self.output: ActorOutput | None = None

    def act(self, obs: Any, greedy: bool = False) -> Any:
        """Choose an action.

        Args:
            obs: a raw observation of the Gymnasium environment.
            greedy: take the most probable action instead of a sampled one.

        Returns:
            An action for `env.step`: int, or an array of the space's shape and dtype.
        """
        self.output = self.actor.observe(self._batch(obs), greedy)
        zero, no = torch.zeros(1), torch.zeros(1, dtype=torch.bool)
        self.actor.record_outcome(zero, no, no, no)
        act = self.output.act[0].cpu().numpy()
        if isinstance(self.act_space, UnitBox):
            return self.act_space.to_raw(act)
        return int(act) if self.act_space.shape == () else act.astype(self.act_space.dtype)

    def _batch(self, obs: Any) -> Obs:
        if isinstance(obs, dict) and self.keys:
            obs = {k: obs[k] for k in self.keys}
            obs = next(iter(obs.values())) if len(obs) == 1 else obs

        def tensor(x: Any) -> torch.Tensor:
            array = np.asarray(x)[None]
            return torch.as_tensor(array.astype(np.float32) if array.dtype == np.float64 else array)

        return map_obs(tensor, obs)
