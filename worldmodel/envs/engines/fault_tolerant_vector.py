"""N copies of a Gymnasium environment; failed copies are replaced."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array

from worldmodel.envs.engines.workers import Fault, Local, Remote
from worldmodel.envs.info_entries import InfoEntries
from worldmodel.envs.output_check import FaultyEnvironment
from worldmodel.envs.vector import FAULT

FIRST_STEPS = 100
"""Steps from the beginning in which the same fault in every copy is an error of the environment's code."""


class TooManyFaults(RuntimeError):
    """Raised when more copies fail than `env.max_faults` allows."""


class FaultTolerantVectorEnv(gym.vector.VectorEnv):
    """N copies with NEXT_STEP autoreset, sequentially in this process or in one process each.

    A copy is replaced by a new one if it raises, dies, gives no answer for `timeout` seconds, or returns what
    `OutputCheck` does not allow. Death and a missing answer are detected with `processes` only. For that step
    `info[FAULT]` (N,) marks the copy: its action is lost, and the observation is the first one of the new copy's
    first episode, with reward 0.

    max_faults: number of faults in this process above which TooManyFaults is raised.
    limit: steps after which an episode is truncated, so that it takes a limited time to repeat; None: no limit.
    requested: entries of info that are needed, see `InfoEntries`.

    Raises FaultyEnvironment if, within `FIRST_STEPS` steps, every copy has failed in the same way (numbers in the
    message aside), and at least two faults were equal.
    """

    limit: int | None = None

    def __init__(
        self,
        make: Callable[[], gym.Env],
        num_envs: int,
        processes: bool,
        timeout: float = 120.0,
        max_faults: int = 100,
        requested: Mapping[str, str] | None = None,
    ):
        env = make() if processes else None  # before the workers: if the constructor fails, none is left behind
        self._new = lambda: (Remote if processes else Local)(make, requested)
        self.workers = [self._new() for _ in range(num_envs)]
        env = env or self.workers[0].copy.env
        self.single_observation_space, self.single_action_space = env.observation_space, env.action_space
        flat = env.has_wrapper_attr("raw_action_space")
        self.raw_action_space = env.get_wrapper_attr("raw_action_space") if flat else env.action_space
        self.render_mode, self.spec = env.render_mode, env.spec
        self.metadata = {**env.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}
        if processes:
            env.close()
        self.num_envs, self.timeout, self.max_faults = num_envs, timeout, max_faults
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.faults = 0
        self._seeds: list[int] = [0] * num_envs
        self._replaced = [0] * num_envs
        self._entries = InfoEntries(requested)
        self._age = 0  # steps and resets so far
        self._early: dict[str, list[int]] = {}  # copies by the fault that they had on the first steps
        self._steps = np.zeros(num_envs, dtype=np.int64)  # of each copy's episode
        self._over, self._cut = np.zeros((2, num_envs), dtype=bool)  # by its last step; by the limit

    def reset(self, *, seed: list[int] | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Begin new episodes in all copies, with one seed per copy."""
        if seed is not None:
            self._seeds = list(seed)
        self._steps, self._over, self._cut = (np.zeros_like(x) for x in (self._steps, self._over, self._cut))
        given = [None] * self.num_envs if seed is None else seed
        first = [(obs, 0.0, False, False, info) for obs, info in self._all("reset", [(s,) for s in given])[0]]
        obs, *_, info = self._join(first)
        return obs, info

    def step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Take one action in each copy."""
        answers, fault = self._all("step", list(zip(actions, self._cut.tolist(), strict=True)))
        obs, rew, end, trunc, info = self._join(
            [(a[0], 0.0, False, False, a[1]) if len(a) == 2 else a for a in answers]
        )
        self._steps = np.where(self._over | fault, 0, self._steps + 1)
        self._cut = np.zeros_like(end) if self.limit is None else (self._steps >= self.limit) & ~end & ~trunc
        trunc = trunc | self._cut
        self._over = end | trunc
        if fault.any():
            info[FAULT] = fault
        return obs, rew, end, trunc, info

    @property
    def longest(self) -> int:
        """Return the number of steps of the longest running episode, which `restore` needs."""
        return int(self._steps.max())

    def render(self) -> tuple[Any, ...]:
        """Return the picture of copy 0."""
        self.workers[0].ask("render")
        return (self.workers[0].answer(time.monotonic() + self.timeout),)

    def close_extras(self, **kwargs: Any) -> None:
        for worker in self.workers:
            worker.close()

    def state(self) -> dict[str, Any]:
        """Return the state as plain data; empty if a copy fails to return its own."""
        for worker in self.workers:
            worker.ask("state")
        try:
            copies = [worker.answer(time.monotonic() + self.timeout) for worker in self.workers]
        except Fault:
            return {}
        episodes = {"steps": self._steps, "over": self._over, "cut": self._cut}
        return {"copies": copies, "seeds": self._seeds, "replaced": self._replaced, **episodes}

    def restore(self, state: dict[str, Any], actions: Sequence[Sequence[Any]]) -> bool:
        """Restore a state. If it returns False, call `reset` next.

        actions: of all copies in the last steps, at least `longest` of them: (steps, N, ...).
        """
        if len(state.get("copies", [])) != self.num_envs:
            return False
        self._steps, self._over, self._cut = (state[key] for key in ("steps", "over", "cut"))
        for i, (worker, copy) in enumerate(zip(self.workers, state["copies"], strict=True)):
            worker.ask("restore", copy, [step[i] for step in actions[len(actions) - self._steps[i] :]])
        self._seeds, self._replaced = list(state["seeds"]), list(state["replaced"])
        try:
            return all([worker.answer(None) for worker in self.workers])
        except Fault:
            return False

    def _all(self, method: str, args: list[tuple[Any, ...]]) -> tuple[list[Any], np.ndarray]:
        """Call a method in every copy, and replace those that fail."""
        deadline = time.monotonic() + self.timeout
        self._age += 1
        for worker, given in zip(self.workers, args, strict=True):
            worker.ask(method, *given)
        answers: list[Any] = []
        faults: dict[int, Fault] = {}
        for i, worker in enumerate(self.workers):
            try:
                answers.append(worker.answer(deadline))
            except Fault as error:
                answers.append(None)
                faults[i] = error
        fault = np.zeros(self.num_envs, dtype=bool)
        if faults:
            for i, error in faults.items():
                self._note(i, error)  # of all copies, before the first of them is replaced
            for i, error in faults.items():
                answers[i] = self._replace(i, error)
                fault[i] = True
        return answers, fault

    def _note(self, i: int, fault: Fault) -> None:
        """Raise FaultyEnvironment if, on the first steps, each copy has had this fault."""
        if self._age > FIRST_STEPS:
            return
        copies = self._early.setdefault(re.sub(r"\d[\d.e+-]*", "0", str(fault)), [])
        copies.append(i)
        if len(copies) > 1 and len(set(copies)) == self.num_envs:
            name = f"env.id={self.spec.id}" if self.spec else "env"
            raise FaultyEnvironment(f"{name}: every copy fails within its first steps: {fault}")

    def _replace(self, i: int, fault: Fault) -> tuple[Any, dict[str, Any]]:
        """Replace copy i by a new one and return its first observation and info."""
        while True:
            self.faults += 1
            if self.faults > self.max_faults:
                raise TooManyFaults(f"env.max_faults={self.max_faults}: one more environment failed, copy {i}: {fault}")
            print(f"warning: environment {i} is replaced: {fault}", file=sys.stderr, flush=True)
            self.workers[i].close(kill=True)
            self._replaced[i] += 1
            seed = np.random.SeedSequence((self._seeds[i], self._replaced[i])).generate_state(1)[0] >> 1
            try:
                self.workers[i] = self._new()
                self.workers[i].ask("reset", int(seed))
                return self.workers[i].answer(time.monotonic() + self.timeout)
            except Exception as error:
                fault = error if isinstance(error, Fault) else Fault(str(error))
                self._note(i, fault)

    def _join(self, answers: list[tuple[Any, ...]]) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        rows, rew, end, trunc, infos = zip(*answers, strict=True)
        space = self.single_observation_space
        obs = concatenate(space, rows, create_empty_array(space, self.num_envs))
        return obs, np.array(rew, dtype=np.float64), np.array(end), np.array(trunc), self._entries.join(infos)
