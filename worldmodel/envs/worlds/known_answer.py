"""Worlds with a known answer: POMDPs with the exact belief of an ideal observer in `info`."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from worldmodel.envs.worlds.base import Worlds
from worldmodel.envs.worlds.hmm import HMM, entropy
from worldmodel.envs.worlds.processes import PROCESSES


class KnownWorlds(Worlds):
    """N copies of a process, whose tokens are the observations.

    `info`, for each observation and computed from observations and actions alone (exact Bayes filter):
        belief (N, S)          probability of each hidden state
        predictive (N, A, X)   distribution of the next observation, for each action
        entropy (N, A)         its entropy in nats: the least expected log loss of any model and policy
        state (N,)             the hidden state itself, for probes

    process: a name in `PROCESSES`.
    kwargs: arguments of the process.
    """

    def __init__(self, num_envs: int, process: str, max_episode_steps: int = 64, **kwargs: Any):
        self.process: HMM = PROCESSES[process](**kwargs)
        spaces = gym.spaces.Discrete(self.process.num_tokens), gym.spaces.Discrete(self.process.num_actions)
        super().__init__(num_envs, *spaces, max_episode_steps)
        self._state = np.zeros(num_envs, dtype=np.int64)
        self._belief = np.tile(self.process.initial, (num_envs, 1))

    def _advance(self, act: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        process = self.process
        first = self.generator.choice(process.num_states, size=self.num_envs, p=process.initial)
        before = np.where(new, first, self._state)
        act = np.where(new, process.start, act)
        token, self._state = process.sample(before, act, self.generator.random(self.num_envs))
        prior = np.where(new[:, None], process.initial, self._belief)
        self._belief = process.update(prior, act, token)
        predictive = process.predict(self._belief)
        info = {"belief": self._belief, "predictive": predictive, "entropy": entropy(predictive), "state": self._state}
        return token, process.rewards[act, before], info
