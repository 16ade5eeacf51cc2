"""Base classes of intrinsic rewards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import gymnasium as gym
from torch import Tensor, nn

from encoders.encoder import Encoder
from worldmodel.model.world_model import Outputs
from worldmodel.types import Rollout, Sequences


@dataclass(frozen=True, kw_only=True)
class AgentSpec:
    """Spaces, sizes and encoders of the agent that a signal belongs to; the first argument of every signal."""

    obs_space: gym.Space  # of stored observations
    act_space: gym.Space
    num_envs: int  # N, environments of a rank
    encoder: Encoder  # the main encoder
    make_encoder: Callable[..., Encoder]  # a new one of the same configuration; keywords override it, also `space=`
    target_shape: tuple[int, ...]  # of the target latent y
    memory_dim: int  # D, the width of h


class Curiosity(nn.Module):
    """Base class of intrinsic rewards: rollout -> raw reward, minibatch -> losses of the signal's own networks.

    Args:
        spec: what the signal can build on.

    max_reward: the predicted reward of a transition of which nothing is known; None without an upper limit.
    """

    max_reward: float | None = None

    def __init__(self, spec: AgentSpec):
        super().__init__()

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        """Return the raw intrinsic reward (B, T) of the transitions t -> t+1, under the frozen model that acted.

        Called once per rollout, before any update on that rollout. Running statistics are updated here.
        """
        raise NotImplementedError

    def predict_reward(self, roll: Rollout, out: Outputs) -> Tensor:
        """Return the predicted raw reward (B, T) of imagined transitions, without changing any state.

        Policies that learn in imagination use it. Signals that need the real next observation or the episode's history
        do not implement it.
        """
        raise NotImplementedError

    def losses(self, roll: Sequences, out: Outputs) -> dict[str, Tensor]:
        """Return the unreduced losses (B, T) of the signal's own networks, by name; empty by default.

        Sequences from the replay have no h, z or rewards. Gradients must not reach `out`, which belongs to the world
        model.
        """
        return {}

    def update(self) -> None:
        """Follow an optimiser step; called after each step whose loss included `losses`."""

    def reset(self, num_envs: int) -> None:
        """Discard the state of the running episodes and prepare for new episodes in `num_envs` environments."""
        for module in self.modules():
            if isinstance(module, PerEnvState):
                module.reset(num_envs)


class PerEnvState(nn.Module):
    """State that a module keeps per environment between rollouts: buffers with leading dimension N.

    The state covers the rows before the first row of the next rollout. The row that closes a rollout is also the first
    row of the next one, so the results do not depend on where a rollout was cut.
    """

    def reset(self, num_envs: int) -> None:
        """Discard all state and prepare for `num_envs` environments."""
        raise NotImplementedError


def per_env_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Return the buffers of every `PerEnvState` in a module, which differ between ranks, by their names in it."""
    states = ((name, part) for name, part in module.named_modules() if isinstance(part, PerEnvState))
    return {f"{name}.{key}": x for name, part in states for key, x in part.named_buffers(recurse=False)}
