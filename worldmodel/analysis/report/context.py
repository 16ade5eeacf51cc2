"""A checkpoint under study: its agent, and the episodes that it played, each behaviour once for all parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from omegaconf import DictConfig

from worldmodel.analysis.report.calibration import Calibration
from worldmodel.analysis.report.recorded import Kept
from worldmodel.analysis.report.transitions import Transitions
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.learner.run_episodes import Tally, freeze, play
from worldmodel.policy import RandomPolicy
from worldmodel.training.build import EnvSpec, build_env, env_spec
from worldmodel.training.config import bad_input

SEED_OFFSET = 1_000_000  # keeps evaluation's environments apart from those of any training seed
KEPT = 8  # rollouts that predictions start from: so many, up to twice as many


@dataclass
class Played:
    """What one behaviour's episodes came to."""

    name: str
    tally: Tally
    steps: Transitions
    calibration: Calibration
    kept: list[Kept]


@dataclass
class Study:
    """`module` must be on its device already; `play` freezes it."""

    checkpoint: Path
    module: CuriousAgent
    cfg: DictConfig
    episodes: int
    seed: int
    num_envs: int
    say: Callable[[str], None] = lambda words: None
    spec: EnvSpec = field(init=False)
    _played: dict[Any, Played] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        freeze(self.module, self.num_envs)
        self.spec = env_spec(self.cfg)

    @property
    def act_space(self) -> gym.Space:
        return self.spec.act_space

    @property
    def null_action(self) -> int | None:
        return self.spec.null_action

    @property
    def random_policy(self) -> RandomPolicy:
        model = self.module.model
        return RandomPolicy(model.memory.dim, model.encoder.shape, self.act_space, hidden=1).to(self.module.device)

    def play(self, policy: str, **changes: Any) -> Played:
        """The episodes of a policy (`greedy`, `sampled` or `random`), with changes of the environment's arguments;
        the same call gives the same object."""
        key = (policy, tuple(sorted(changes.items())))
        if key not in self._played:
            self._played[key] = self._play(policy, changes)
        return self._played[key]

    def _play(self, policy: str, changes: dict[str, Any]) -> Played:
        torch.manual_seed(self.seed)
        with bad_input():
            env = build_env(self.cfg, seed=SEED_OFFSET + self.seed, num_envs=self.num_envs, **changes)
        name = " ".join([policy, *(f"{k}={v}" for k, v in changes.items())])
        tally, calibration = Tally(self.episodes), Calibration()
        steps: list[Transitions] = []
        kept: list[Kept] = []
        every = 1  # keep each second rollout once there are too many, each fourth then, …
        try:
            playing = play(
                self.module,
                env,
                tally,
                context=self.cfg.data.context,
                rollout_length=self.cfg.data.rollout_length,
                greedy=policy == "greedy",
                policy=self.random_policy if policy == "random" else None,
                progress=lambda done: self.say(f"{name}: {min(done, self.episodes)}/{self.episodes} episodes"),
            )
            for i, (roll, out) in enumerate(playing):
                number, counted = tally.number(roll)
                steps.append(Transitions.of(roll, out, number, counted))
                calibration.add(out.error[counted], out.pred.logvar[counted])
                if i % every == 0:
                    kept.append(Kept.of(self.module.model, roll, out, number, counted))
                if len(kept) > 2 * KEPT:
                    kept, every = kept[::2], 2 * every
        finally:
            env.close()
        return Played(name, tally, Transitions.join(steps), calibration, kept)
