"""Environments, actor, collector and replay of one rank, and their state in checkpoints."""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldmodel.envs import VectorEnv
from worldmodel.envs.metrics import Metric
from worldmodel.experience.actor import Actor
from worldmodel.experience.collector import Collector, Episodes, Source
from worldmodel.experience.replay import CuriousReplayPriority, Replay
from worldmodel.seeds import ENVS, SAMPLING, derive_seed

MakeActor = Callable[[int, int, int], Actor]  # numbers of environments, of context steps and of new steps


class ExperienceStream:
    """Source and store of an agent's real steps.

    The last `replay_capacity` sequences can be drawn again, uniformly or by `replay_priority`. They are in memory and
    in the checkpoints, or in `replay_dir`, which keeps all sequences of a run; see `Disk`. Each rank has a stream.

    Unless `keep_envs` is False, the environments are restored from checkpoints, so that on the CPU a resumed run is
    bitwise equal to an uninterrupted one. Engines that cannot save their state are restored by repeating the actions,
    see `VectorEnv.record`: at most `repeat_limit` steps of a rank (None: by the kind of engine, for about 20 s). An
    update that would go beyond the limit begins with new environments and a new record, whether or not the run was
    interrupted. If the environments are new, not kept or cannot be restored (after a warning), the interrupted episodes
    end, the step between is masked, and new episodes start.

    Attributes:
        actions: folder of the recorded actions, a file for each rank and each record; None: in the checkpoints.
        earlier_actions: the same folder of the run whose checkpoint is resumed.
    """

    actions: Path | None = None
    earlier_actions: Path | None = None

    def __init__(
        self,
        make_env: Callable[[int], VectorEnv],
        *,
        rollout_length: int,
        context: int,
        replay_capacity: int,
        replay_priority: CuriousReplayPriority | None,
        replay_dir: str | None,
        success: float | None,
        stats_window: int,
        keep_envs: bool | None,
        repeat_limit: int | None = None,
        seed: int,
        make_metrics: Callable[[], Mapping[str, Metric]] = dict,
    ):
        self.make_env, self.rollout_length, self.context = make_env, rollout_length, context
        self.replay_capacity, self.replay_priority, self.replay_dir = replay_capacity, replay_priority, replay_dir
        self.success, self.stats_window, self.seed = success, stats_window, seed
        self.kept, self.repeat_limit = keep_envs is not False, repeat_limit
        self.make_metrics = make_metrics
        self.replay = Replay(0)
        self.rollouts = 0  # collected so far, restarts included
        self.env: VectorEnv | None = None

    def open(self, make_actor: MakeActor, *, rank: int = 0, ranks: int = 1) -> None:
        """Make the environments, the collector and the replay of one rank."""
        self.make_actor, self.rank, self.ranks = make_actor, rank, ranks
        folder = self.replay_dir and Path(self.replay_dir) / f"rank{rank}"
        self.replay = Replay(self.replay_capacity, self.replay_priority, folder or None)
        self._make_envs(self._new_env_seed(), self.rollouts)

    def _new_env_seed(self) -> int:
        """Return a seed that differs between ranks and between restarts."""
        return derive_seed(self.seed, ENVS, self.rank, self.rollouts)

    def _make_envs(self, env_seed: int, begun: int) -> None:
        """Make environments with a seed, whose record begins after `begun` rollouts."""
        self.env_seed, self.begun = env_seed, begun
        self.env = self.make_env(env_seed)
        if self.kept:
            self.env.record(self.actions and self.actions / self._record_name(begun), self.repeat_limit)
        actor = self.make_actor(self.env.num_envs, self.context, self.rollout_length)
        episodes = Episodes(self.env.num_envs, self.stats_window, self.success)
        self.collector = Collector(self.env, actor, episodes)
        self.metrics = dict(self.make_metrics())

    def _record_name(self, begun: int) -> str:
        return f"rank{self.rank}_{begun}.bin"

    def _renew_envs(self) -> None:
        """Go on in new environments, exactly as after a restart without the old ones."""
        collector = self.collector.state_dict()
        metrics = {name: metric.state_dict() for name, metric in self.metrics.items()}
        self._open_env.close()
        self._make_envs(self._new_env_seed(), self.rollouts)
        self.collector.load_state_dict(collector, same_window=True, same_envs=False)
        for name, metric in self.metrics.items():
            metric.load_state_dict(metrics[name], running=False)

    @property
    def is_open(self) -> bool:
        return self.env is not None

    @property
    def source(self) -> Source:
        """The source of rollouts."""
        return self.collector

    @property
    def _open_env(self) -> VectorEnv:
        assert self.env is not None, "the stream is not open"
        return self.env

    def summary(self) -> dict[str, float]:
        """Return metrics of this rank's environments, by names in metrics.csv."""
        episodes = self.collector.episodes
        found = episodes.summary() | {"env_faults": episodes.faults}
        for metric in self.metrics.values():
            found |= metric.summary()
        return found

    def close(self) -> None:
        """Close the environments and the replay."""
        if self.env is not None:
            self.env.close()
            self.env = None
        self.replay.close()

    def state_dict(self, gather: Callable[[Any], list[Any]] = lambda own: [own]) -> dict[str, Any]:
        """Return the state of all ranks, collected by `gather`. Of replays in memory it has only the first rank's."""
        own = {
            "collector": self.collector.state_dict(),
            "envs": self.env.state_dict() if self.kept and self.env is not None else {},
            "env_seed": self.env_seed,
            "begun": self.begun,
            "metrics": {name: metric.state_dict() for name, metric in self.metrics.items()},
        }
        if self.replay.on_disk:
            own["replay"] = self.replay.state_dict()
        state = {"rollouts": self.rollouts, "window": [self.context, self.rollout_length], **own}
        if self.ranks > 1:
            state["ranks"] = gather(own)
        return state if self.replay.on_disk else state | {"replay": self.replay.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a checkpoint; rows and sequences of another window are dropped.

        Of an offline run's checkpoint only the number of updates and the replay are kept.
        """
        self.rollouts = state["rollouts"]
        same_window = state["window"] == [self.context, self.rollout_length]
        ranks = state.get("ranks", [state])
        same_ranks = len(ranks) == self.ranks
        own = ranks[self.rank] if same_ranks else state
        if "collector" not in state:
            self.load_replay(state, own, same_ranks)
            return
        same_number = len(own["collector"]["episode"]) == self._open_env.num_envs
        same_envs = self.kept and same_window and same_ranks and same_number
        same_envs = same_envs and bool(own["envs"]) and self._restore_envs(own)
        if not same_envs:
            self._open_env.close()
            self._make_envs(self._new_env_seed(), self.rollouts)
        self.collector.load_state_dict(own["collector"], same_window=same_window, same_envs=same_envs)
        for name, saved in own["metrics"].items():
            if name in self.metrics:
                self.metrics[name].load_state_dict(saved, running=same_envs)
        self.load_replay(state, own, same_ranks)

    def load_replay(self, state: dict[str, Any], own: dict[str, Any], same_ranks: bool) -> None:
        """Restore the replay from the state of all ranks and that of this one, unless the window has another size."""
        same_window = state["window"] == [self.context, self.rollout_length]
        if same_window and not (self.replay.on_disk and not same_ranks and self.rank):
            self.replay.load_state_dict(own["replay"] if "replay" in own else state["replay"])

    def _restore_envs(self, own: dict[str, Any]) -> bool:
        """Restore the environments of a checkpoint; False where that fails."""
        self._open_env.close()
        try:
            self._copy_record(self._record_name(own["begun"]))
            self._make_envs(own["env_seed"], own["begun"])
            restored = self._open_env.load_state_dict(own["envs"])
        except (LookupError, OSError, TypeError, ValueError):  # of an environment with another configuration
            restored = False
        if not restored:
            message = "warning: the environments cannot be restored from the checkpoint; new episodes begin"
            print(message, file=sys.stderr, flush=True)
        return restored

    def _copy_record(self, name: str) -> None:
        """Copy the recorded actions from the folder of the run that is resumed, if it is another folder."""
        there, here = self.earlier_actions, self.actions
        if there is None or here is None or there.resolve() == here.resolve() or not (there / name).is_file():
            return
        here.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(there / name, here / name)

    def begin_update(self) -> None:
        """Write the last update's record, renew the environments if it is at its limit, and seed all generators."""
        if self.kept:
            self._open_env.flush()
            if self._open_env.is_spent(self.rollout_length):
                self._renew_envs()
        self._seed_sampling()

    def _seed_sampling(self) -> None:
        """Seed all generators for the next update from the seed, the rank and the number of updates alone.

        No restart and no other rank draws the same numbers, and no generator's state has to be saved.
        """
        seed = derive_seed(self.seed, SAMPLING, self.rank, self.rollouts)
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        self.rollouts += 1
