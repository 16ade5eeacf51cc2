"""Worlds with a known answer: POMDPs that tell, beside each observation, what an ideal observer knows."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from worldmodel.worlds.hmm import HMM, entropy
from worldmodel.worlds.processes import PROCESSES


class KnownWorlds(gym.vector.VectorEnv):
    """N copies of a process, stepped together; the observation is its token.

    `info`, after each observation and from nothing but observations and actions (exact Bayes filter):
        belief (N, S)          probability of each hidden state
        predictive (N, A, X)   distribution of the next observation, for each action
        entropy (N, A)         of that, in nats: the least expected log loss, which no model and no policy can beat
        state (N,)             the hidden state itself, for probes

    process: a name in `PROCESSES`. kwargs: go to the process.
    max_episode_steps: time limit; nothing else ends an episode.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "resumable": True}  # noqa: RUF012
    render_mode = None

    def __init__(self, num_envs: int, process: str, max_episode_steps: int = 64, **kwargs: Any):
        if max_episode_steps < 1:
            raise ValueError(f"env.max_episode_steps={max_episode_steps}: allowed are whole numbers from 1")
        self.num_envs, self.limit = num_envs, max_episode_steps
        self.process: HMM = PROCESSES[process](**kwargs)
        self.single_observation_space = gym.spaces.Discrete(self.process.num_tokens)
        self.single_action_space = gym.spaces.Discrete(self.process.num_actions)
        self.observation_space = gym.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, num_envs)
        self._generator = np.random.default_rng()

    def reset(
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        if seed is not None:
            self._generator = np.random.default_rng(seed)
        self._state = np.zeros(self.num_envs, dtype=np.int64)
        self._belief = np.zeros((self.num_envs, self.process.num_states))
        self._steps = np.zeros(self.num_envs, dtype=np.int64)
        self._over = np.ones(self.num_envs, dtype=bool)
        token, *_, info = self.step(np.zeros(self.num_envs, dtype=np.int64))
        return token, info

    def step(self, actions: np.ndarray) -> tuple[Any, ...]:
        process, new = self.process, self._over
        first = self._generator.choice(process.num_states, size=self.num_envs, p=process.initial)
        before = np.where(new, first, self._state)
        act = np.where(new, process.start, actions)
        rew = np.where(new, 0.0, process.rewards[act, before])
        token, self._state = process.sample(before, act, self._generator.random(self.num_envs))
        prior = np.where(new[:, None], process.initial, self._belief)
        self._belief = process.update(prior, act, token)
        self._steps = np.where(new, 0, self._steps + 1)
        self._over = self._steps == self.limit
        predictive = process.predict(self._belief)
        info = {"belief": self._belief, "predictive": predictive, "entropy": entropy(predictive), "state": self._state}
        return token, rew, np.zeros_like(new), self._over.copy(), info


class KnownWorld(gym.Env):
    """One copy of a process, see `KnownWorlds`; gymnasium's own wrapper limits its time."""

    def __init__(self, process: str, **kwargs: Any):
        self.many = KnownWorlds(1, process, max_episode_steps=2**62, **kwargs)
        self.observation_space, self.action_space = self.many.single_observation_space, self.many.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        token, info = self.many.reset(seed=seed)
        return int(token[0]), _only(info)

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        token, rew, _, _, info = self.many.step(np.array([action]))
        return int(token[0]), float(rew[0]), False, False, _only(info)


def _only(info: dict[str, np.ndarray]) -> dict[str, Any]:
    return {k: v[0] for k, v in info.items()}
