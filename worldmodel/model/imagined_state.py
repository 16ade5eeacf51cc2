"""State of imagined rollouts: a memory stepped by sampled predictions."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.model.world_model import WorldModel
from worldmodel.types import Obs, Sequences, map_obs


class ImaginedState:
    """State of B imagined rollouts, starting at the last row of some sequences.

    Observations are drawn symbol by symbol from the observation head (as in IRIS, Micheli et al. 2023). An imagined
    observation is encoded like a real one, so no drift of a latent can be mistaken for novelty.
    """

    obs: Obs  # (B, *obs_shape)
    z: Tensor  # (B, *latent)
    h: Tensor  # (B, D)
    real: Tensor  # (B,) bool: the rollout starts at a step that was taken

    def __init__(self, model: WorldModel, history: Sequences, max_steps: int):
        """max_steps: upper bound of the imagined steps."""
        self.model = model
        self.obs = map_obs(lambda o: o[:, -1], history.obs)
        self.real, self.episode = history.mask[:, -1], history.episode[:, -1]
        z = model.encoder(history.obs)
        x = model.tokens(z, history.prev_act, history.starts)
        h, self.memory = model.memory.prefill(x, history.episode, history.valid, x.shape[1] + max_steps)
        self.h, self.z = h[:, -1], z[:, -1]

    @property
    def y(self) -> Tensor:
        """Target latent (B, *target.shape) of the present observation."""
        return self.model.target(self.obs, self.z)

    def step(self, act: Tensor, group_size: int = 1) -> None:
        """Sample the outcome of act (B, *act_shape).

        Consecutive groups of `group_size` rows, which share their state and action, share one sampled observation.
        """
        obs = self.model.imagine(self.h, act, self.obs)
        if group_size > 1:
            obs = map_obs(lambda o: o[::group_size].repeat_interleave(group_size, 0), obs)
        self.obs = obs
        self.z = self.model.encoder(self.obs)
        x = self.model.tokens(self.z, act, torch.zeros_like(self.real))
        self.h = self.model.memory.step(x, self.episode, self.real, self.memory)
