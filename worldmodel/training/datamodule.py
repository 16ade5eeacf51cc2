"""The LightningDataModule: one epoch is one update of the algorithm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import lightning as L
import torch

from worldmodel.distributed import gather_over_ranks
from worldmodel.envs import VectorEnv
from worldmodel.envs.metrics import Metric
from worldmodel.errors import check_range
from worldmodel.experience.offline import Dataset, OfflineStream
from worldmodel.experience.replay import CuriousReplayPriority
from worldmodel.experience.stream import ExperienceStream
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.learner.updates import Batching, Gather, update
from worldmodel.types import Minibatch


class SequenceData(L.LightningDataModule):
    """Data of one agent. One Lightning epoch is one update.

    An update consists of a rollout of N x T steps with the current policy and of `epochs` passes over it, each divided
    into `minibatches`. Those of the policy have single steps in random order, or whole sequences if the policy's
    gradient reaches the memory. The world model learns from sequences, with every `model_every`-th minibatch: from an
    equal share of the new ones, of which `model_batch` (null: all) are taken, and from `replay_batch` replayed ones.

    With a `dataset`, rollouts are made of its recorded steps in `num_streams` streams, and no environment is created;
    `path` is the dataset's, which `build_data` reads. The other arguments are those of `ExperienceStream`.

    Raises:
        ValueError: for sizes out of range, and for settings of the replay without a replay.
    """

    def __init__(
        self,
        make_env: Callable[[int], VectorEnv],
        *,
        rollout_length: int = 128,
        context: int = 64,
        epochs: int = 4,
        minibatches: int = 4,
        model_every: int = 1,
        model_batch: int | None = None,
        replay_batch: int = 0,
        replay_capacity: int = 0,
        replay_priority: CuriousReplayPriority | None = None,
        replay_dir: str | None = None,
        success: float | None = None,
        stats_window: int = 200,
        keep_envs: bool | None = True,
        repeat_limit: int | None = None,
        seed: int = 0,
        make_metrics: Callable[[], Mapping[str, Metric]] = dict,
        path: str | None = None,
        dataset: Dataset | None = None,
        num_streams: int = 1,
    ):
        super().__init__()
        positive = dict(rollout_length=rollout_length, epochs=epochs, minibatches=minibatches, model_every=model_every)
        for key, value in {**positive, "stats_window": stats_window}.items():
            check_range(f"data.{key}", value, "[1, inf)", whole=True)
        for key, value in dict(context=context, replay_batch=replay_batch, replay_capacity=replay_capacity).items():
            check_range(f"data.{key}", value, "[0, inf)", whole=True)
        if replay_batch and not replay_capacity:
            raise ValueError(f"data.replay_batch={replay_batch}: allowed with data.replay_capacity=0 is 0")
        for key, value in (("replay_priority", replay_priority), ("replay_dir", replay_dir)):
            if value is not None and not replay_batch:
                raise ValueError(f"data.{key}: allowed with data.replay_batch=0 is null")
        check_range("data.model_batch", model_batch, "[1, inf)", whole=True, null=True)
        check_range("data.repeat_limit", repeat_limit, "[1, inf)", whole=True, null=True)
        self.batching = Batching(epochs, minibatches, model_every, model_batch, replay_batch)
        shared: dict[str, Any] = dict(
            rollout_length=rollout_length,
            context=context,
            replay_capacity=replay_capacity,
            replay_priority=replay_priority,
            replay_dir=replay_dir,
            seed=seed,
        )
        self.stream: ExperienceStream
        if dataset is not None:
            self.stream = OfflineStream(dataset, num_streams, **shared)
        else:
            self.stream = ExperienceStream(
                make_env,
                **shared,
                success=success,
                stats_window=stats_window,
                keep_envs=keep_envs,
                repeat_limit=repeat_limit,
                make_metrics=make_metrics,
            )
        self._restored: dict[str, Any] | None = None

    def setup(self, stage: str) -> None:
        module, stream = self.trainer.lightning_module, self.stream
        if not stream.is_open:
            device = self.trainer.strategy.root_device
            rank, ranks = self.trainer.global_rank, self.trainer.world_size
            # the agent is moved to the device after this hook
            stream.open(partial(module.agent.make_actor, device=device), rank=rank, ranks=ranks)
        if self._restored is not None:
            self._load(self._restored)
            self._restored = None

    def train_dataloader(self) -> Minibatches:
        module = self.trainer.lightning_module
        return Minibatches(module.agent, self.stream, self.batching, module.with_full_weights)

    def transfer_batch_to_device(self, batch: Minibatch, device: torch.device, dataloader_idx: int) -> Minibatch:
        """Return the batch unchanged, because rollouts are created on the device."""
        return batch

    def teardown(self, stage: str) -> None:
        self.stream.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the stream. Each rank calls this; the first rank's state contains those of all ranks."""
        steps = int(self.trainer.lightning_module.agent.offline_steps)
        return self.stream.state_dict(gather_over_ranks) | ({"offline_steps": steps} if steps else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the stream from a checkpoint, or keep the state until `setup` opens the stream."""
        if self.stream.is_open:
            self._load(state)
        else:
            self._restored = state

    def _load(self, state: dict[str, Any]) -> None:
        self.trainer.lightning_module.agent.offline_steps.fill_(state.get("offline_steps", 0))
        self.stream.load_state_dict(state)


class Minibatches:
    """Minibatches of one update, as an iterable. Lightning requests a new iterator at the start of each epoch."""

    def __init__(
        self, agent: CuriousAgent, stream: ExperienceStream, batching: Batching, gather: Gather = lambda do: do()
    ):
        self.agent, self.stream, self.batching, self.gather = agent, stream, batching, gather

    def __len__(self) -> int:
        imagination = self.agent.imagination
        updates_per_batch = imagination.updates_per_batch if imagination else 1
        return self.batching.num_minibatches(updates_per_batch)

    def __iter__(self) -> Iterator[Minibatch]:
        stream = self.stream
        stream.begin_update()
        metrics = list(stream.metrics.values())
        yield from update(self.agent, stream.source, stream.replay, self.batching, metrics, self.gather)
