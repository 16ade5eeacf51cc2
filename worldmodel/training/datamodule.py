"""The stream of masked sequences: collect, score, yield minibatches, again."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.distributed as dist

from worldmodel.envs import VectorEnv
from worldmodel.envs.metrics import Achievements, Coverage, Metric, TVShare
from worldmodel.experience.actor import Actor
from worldmodel.experience.collector import Collector, Episodes
from worldmodel.experience.replay import CuriousReplayPriority, Replay, concatenate
from worldmodel.types import Minibatch, Rollout


class SequenceData(L.LightningDataModule):
    """One Lightning epoch is one update: a rollout of N x T steps with the current policy, then `epochs` passes
    over its sequences in minibatches of `batch` sequences.

    `batch` divides the number of environments. Where the policy's gradient stops at the memory, the world model may
    take larger and fewer steps than the policy: one with every `model_every`-th of its minibatches, on the first
    `model_batch` (null: all) of the sequences of these minibatches together and on `replay_batch` old ones.

    The last `replay_capacity` sequences can be drawn again, uniformly or by `replay_priority`. They are in memory and
    in the checkpoints, or in `replay_dir`, where a run keeps all of its sequences; see `Disk`. Each rank has its own.

    `keep_envs` puts the environments into the checkpoints: on the CPU, the run that goes on is then bit for bit the one
    that was never interrupted. None: where they are resumable; True: also where that takes a record of all actions
    since the run began, and the time to repeat them; see `VectorEnv.record`. Where they are not kept, or can't be
    brought back (which is found out, and warned of), the interrupted episodes are over, the step between masked, and
    new ones begin.
    """

    def __init__(
        self,
        make_env: Callable[[int], VectorEnv],
        *,
        horizon: int = 128,
        context: int = 64,
        epochs: int = 4,
        batch: int = 4,
        model_every: int = 1,
        model_batch: int | None = None,
        replay_batch: int = 0,
        replay_capacity: int = 0,
        replay_priority: CuriousReplayPriority | None = None,
        replay_dir: str | None = None,
        success: float | None = None,
        episode_window: int = 200,
        keep_envs: bool | None = None,
        seed: int = 0,
    ):
        super().__init__()
        for key, value, low in (
            ("horizon", horizon, 1), ("context", context, 0), ("epochs", epochs, 1), ("batch", batch, 1),
            ("model_every", model_every, 1), ("replay_batch", replay_batch, 0), ("replay_capacity", replay_capacity, 0),
        ):  # fmt: skip
            if value < low:
                raise ValueError(f"data.{key}={value}: allowed are whole numbers from {low}")
        if replay_batch and not replay_capacity:
            raise ValueError(f"data.replay_batch={replay_batch}: allowed with data.replay_capacity=0 is 0")
        for key, value in (("replay_priority", replay_priority), ("replay_dir", replay_dir)):
            if value is not None and not replay_batch:
                raise ValueError(f"data.{key}: allowed with data.replay_batch=0 is null")
        most = batch * model_every
        if model_batch is not None and not 1 <= model_batch <= most:
            raise ValueError(f"data.model_batch={model_batch}: allowed are null and 1 to batch * model_every = {most}")
        self.model_every, self.model_batch = model_every, model_batch or most
        self.make_env, self.horizon, self.context = make_env, horizon, context
        self.epochs, self.batch, self.replay_batch = epochs, batch, replay_batch
        self.success, self.episode_window, self.keep_envs, self.seed = success, episode_window, keep_envs, seed
        self.replay_capacity, self.replay_priority, self.replay_dir = replay_capacity, replay_priority, replay_dir
        self.replay = Replay(0)
        self.collector: Collector | None = None
        self.env: VectorEnv | None = None
        self.meters: list[Metric] = []
        self.rollouts = 0  # collected so far, restarts included
        self._restored: dict[str, Any] | None = None

    def setup(self, stage: str) -> None:
        if self.collector is None:
            folder = self.replay_dir and Path(self.replay_dir) / f"rank{self.trainer.global_rank}"
            self.replay = Replay(self.replay_capacity, self.replay_priority, folder or None)
            self._open(self._env_seed())
        if self._restored is not None:
            self.load_state_dict(self._restored)
            self._restored = None

    def _env_seed(self) -> int:
        """Other environments on each rank, and after a restart other ones than at the start."""
        return self.seed + 1000 * self.trainer.global_rank + 10**9 * self.rollouts

    def _open(self, env_seed: int) -> None:
        """Make the environments and the collector."""
        module, self.env_seed = self.trainer.lightning_module, env_seed
        self.env = self.make_env(env_seed)
        self.kept = self.env.resumable if self.keep_envs is None else self.keep_envs
        if self.kept:
            self.env.record()
        actor = Actor(
            module.model,
            module.policy,
            self.env.act_space,
            num_envs=self.env.num_envs,
            context=self.context,
            horizon=self.horizon,
            device=self.trainer.strategy.root_device,
        )
        episodes = Episodes(self.env.num_envs, self.episode_window, self.success)
        self.collector = Collector(self.env, actor, episodes)
        window = self.episode_window
        self.meters = [TVShare(), Coverage(window), Achievements(), Coverage(window, key="room", name="rooms")]

    def train_dataloader(self) -> Minibatches:
        return Minibatches(self)

    def transfer_batch_to_device(self, batch: Minibatch, device: torch.device, dataloader_idx: int) -> Minibatch:
        """Rollouts are made on their device; there is nothing to transfer."""
        return batch

    @property
    def steps_per_update(self) -> int:
        """N x T, on this rank."""
        return self.env.num_envs * self.horizon

    def summary(self) -> dict[str, float]:
        """What this rank's environments came to, by names in metrics.csv."""
        episodes = self.collector.episodes
        found = episodes.summary() | {"env_faults": episodes.faults}
        for meter in self.meters:
            found |= meter.summary()
        return found

    def teardown(self, stage: str) -> None:
        if self.env is not None:
            self.env.close()
            self.env = None
        self.replay.close()

    def state_dict(self) -> dict[str, Any]:
        """On several ranks, each calls this: the first one's state holds what the others collect, too."""
        own = {
            "collector": self.collector.state_dict(),
            "envs": self.env.state_dict() if self.kept else {},
            "env_seed": self.env_seed,
            "meters": [meter.state_dict() for meter in self.meters],
        }
        if self.replay.on_disk:
            own["replay"] = self.replay.state_dict()
        state = {"rollouts": self.rollouts, "window": [self.context, self.horizon], **own}
        if (ranks := self.trainer.world_size) > 1:
            gathered: list[Any] = [None] * ranks
            dist.all_gather_object(gathered, own)
            state["ranks"] = gathered
        return state if self.replay.on_disk else state | {"replay": self.replay.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a checkpoint stopped; rows and old sequences of another window are dropped."""
        if self.collector is None:
            self._restored = state
            return
        self.rollouts = state["rollouts"]
        same_window = state["window"] == [self.context, self.horizon]
        ranks = state.get("ranks", [state])
        same_ranks = len(ranks) == self.trainer.world_size
        own = ranks[self.trainer.global_rank] if same_ranks else state
        same_envs = self.kept and same_window and same_ranks and bool(own["envs"]) and self._bring_back(own)
        if not same_envs:
            self.env.close()
            self._open(self._env_seed())
        self.collector.load_state_dict(own["collector"], same_window=same_window, same_envs=same_envs)
        for meter, saved in zip(self.meters, own["meters"], strict=False):  # older checkpoints have fewer
            meter.load_state_dict(saved, running=same_envs)
        if same_window and not (self.replay.on_disk and not same_ranks and self.trainer.global_rank):
            self.replay.load_state_dict(own["replay"] if "replay" in own else state["replay"])

    def _bring_back(self, own: dict[str, Any]) -> bool:
        """The environments as they were when the checkpoint was made; False where that fails."""
        self.env.close()
        self._open(own["env_seed"])
        try:
            back = self.env.load_state_dict(own["envs"])
        except (LookupError, TypeError, ValueError):  # of an environment that is configured in another way now
            back = False
        if not back:
            words = "warning: the environments can't be brought back to where they were; new episodes begin"
            print(words, file=sys.stderr, flush=True)
        return back

    def seed_sampling(self) -> None:
        """Whatever an update draws depends on the seed, the rank and the update alone: no restart and no other rank
        draws the same numbers, and no generator's state has to be saved."""
        words = np.random.SeedSequence((self.seed, self.trainer.global_rank, self.rollouts)).generate_state(1)
        torch.manual_seed(int(words[0]))
        np.random.seed(int(words[0]))
        random.seed(int(words[0]))
        self.rollouts += 1


class Minibatches:
    """An iterable of one update's minibatches; Lightning asks for a new iterator at each epoch's start."""

    def __init__(self, data: SequenceData):
        self.data = data

    def __len__(self) -> int:
        dream = self.data.trainer.lightning_module.dream
        return self.data.epochs * (self.data.env.num_envs // self.data.batch) * (dream.passes if dream else 1)

    def __iter__(self) -> Iterator[Minibatch]:
        data, module = self.data, self.data.trainer.lightning_module
        data.seed_sampling()
        with module.clock("collect"):
            roll = module.look(data.collector.collect)
        with module.clock("curiosity"):
            module.look(lambda: module.score(roll))
        for meter in data.meters:
            meter.add(roll)
        data.replay.add(roll)
        if module.dream is not None:
            module.look(lambda: module.dream.begin(module))
        for _ in range(data.epochs):
            for index in torch.randperm(len(roll)).split(data.batch * data.model_every):
                group = roll[index.to(roll.act.device)]
                model, numbers = group[: data.model_batch], None
                if data.replay_batch:
                    old, numbers = data.replay.sample(data.replay_batch, roll.act.device)
                    model = concatenate([model, old])
                for start in range(0, len(group), data.batch):
                    for policy in self._policy(group[start : start + data.batch]):
                        yield Minibatch(model, policy, numbers)
                        model = numbers = None  # once for the group

    def _policy(self, lived: Rollout) -> Iterator[Rollout]:
        """What the policy learns from: what it lived through, or instead what it imagines."""
        data, module = self.data, self.data.trainer.lightning_module
        if module.dream is None:
            yield lived
        else:
            past, _ = data.replay.sample(module.dream.starts, lived.act.device)
            yield from module.dream.rollouts(module, past)
