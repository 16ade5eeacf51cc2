"""Agents as safetensors and JSON, which cannot execute code, in a folder or on the Hugging Face hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelHubMixin, hf_hub_download
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from worldmodel.errors import ConfigError
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.training.checkpoint import FORMAT, check_trusted

WEIGHTS = "model.safetensors"
_OURS = {"run_dir": None, "checkpoint": None, "overwrite": False, "logger": {}}  # of the run, not of the agent
_CARD = """---
library_name: worldmodel
tags: [reinforcement-learning, world-model, curiosity]
---
# A curious agent for {id}

Trained for {steps:,} steps of {id}: a transformer world model, an intrinsic reward and a policy.

    from worldmodel.training.loading import Agent

    agent = Agent.from_pretrained("PATH OR REPOSITORY")
    act = agent.act(obs)
"""


class Shared(ModelHubMixin):
    """Base class with `save_pretrained`, `from_pretrained` and `push_to_hub`.

    A subclass has a `module` and the `cfg` that it was built from, and implements `from_parts`. The folder contains
    model.safetensors, config.json and a model card. Reading raises ConfigError for files that are missing, damaged or
    do not fit, and for a configuration that would call a function that no configuration of this project calls.
    """

    module: CuriousAgent  # with its `env_spec`
    cfg: DictConfig

    def _save_pretrained(self, save_directory: Path) -> None:
        state = {k: v.detach().cpu().contiguous().clone() for k, v in self.module.state_dict().items()}
        save_file(state, save_directory / WEIGHTS)
        assert self.module.env_spec is not None
        own = {"format": FORMAT, "env_spec": self.module.env_spec.to_dict()}
        config = OmegaConf.to_container(self.cfg) | _OURS | own
        (save_directory / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True))

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        return ModelCard(_CARD.format(id=self.cfg.env.id, steps=int(self.module.env_steps)))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Any:
        """Load an agent.

        Args:
            pretrained_model_name_or_path: a folder, or a repository of the hub.
            kwargs: options of the hub, and `config_dir` as for `Agent.load`.

        Raises:
            ConfigError: for files that are missing, damaged or do not fit.
        """
        try:
            return super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, TypeError, RecursionError) as error:
            where = f"{pretrained_model_name_or_path}/config.json"
            raise ConfigError(f"{where}: not readable ({str(error).splitlines()[0][:120]})") from None

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, config: dict[str, Any] | None = None, local_files_only: bool = False, **options: Any
    ) -> Any:
        hub = {k: options.get(k) for k in ("revision", "cache_dir", "force_download", "token")}
        if config is None:
            raise ConfigError(f"{model_id}: no config.json")
        if (version := config.pop("format", None)) != FORMAT:
            raise ConfigError(f"{model_id}/config.json: of format {version}, this version reads {FORMAT}")
        spaces = config.pop("env_spec", None)
        check_trusted(config, f"{model_id}/config.json", options.get("config_dir"))
        path = Path(model_id) / WEIGHTS
        if not Path(model_id).is_dir():
            path = Path(hf_hub_download(model_id, WEIGHTS, local_files_only=local_files_only, **hub))
        if not path.is_file():
            raise ConfigError(f"{model_id}: no {WEIGHTS}")
        try:
            state: dict[str, torch.Tensor] = load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise ConfigError(f"{path}: not readable ({str(error).splitlines()[0][:120]})") from None
        return cls.from_parts(config, spaces, state, path)

    @classmethod
    def from_parts(cls, config: dict[str, Any], spaces: Any, state: dict[str, torch.Tensor], where: str | Path) -> Any:
        """Build an agent from a configuration, the data of an `EnvSpec` and the state of its module, from `where`."""
        raise NotImplementedError
