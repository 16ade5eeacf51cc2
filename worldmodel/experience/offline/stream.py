"""Stream of recorded steps, in the place of environments and a collector."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from worldmodel.envs import VectorEnv
from worldmodel.experience.actor import Actor
from worldmodel.experience.collector import Episodes
from worldmodel.experience.offline.dataset import Dataset
from worldmodel.experience.replay import CuriousReplayPriority, Replay
from worldmodel.experience.stream import ExperienceStream, MakeActor
from worldmodel.types import Rollout, Sequences, add_fields, map_obs


class RecordedCollector:
    """Rollouts of T recorded steps in each of N streams, which go through episodes drawn at random with replacement.

    A rollout has the form of a `Collector`'s: K rows of context before the T new steps, and a stream goes on where its
    last rollout stopped. Memory, latents and values are those of the present agent on the recorded observations, from
    one full pass, which equals acting. The log-probability is 0, as of every given action.

    `info["return_to_go"]` (N, T + 1) has the undiscounted sum of the rewards from each row to the end of its episode.
    """

    acts: ClassVar[bool] = False

    def __init__(self, dataset: Dataset, actor: Actor):
        self.dataset, self.actor = dataset, actor
        shape = (actor.num_envs, actor.context + actor.rollout_length + 1)
        self.index = torch.full(shape, -1)  # (N, K+T+1) rows of the dataset; -1: before the start
        self.episode = torch.zeros(shape, dtype=torch.long)
        self.return_to_go = dataset.returns_to_go()

    def _draw(self) -> Tensor:
        """Return the first rows of episodes drawn uniformly, (N,)."""
        return self.dataset.first[torch.randint(len(self.dataset.first), (len(self.index),))]

    def _advance(self) -> None:
        """Keep the last K rows and the closing one, which becomes the first new row, and append T rows."""
        context, steps = self.actor.context, self.actor.rollout_length
        for x in (self.index, self.episode):
            x[:, : context + 1] = x[:, steps:].clone()
        if (self.index[:, context] < 0).any():  # the first rollout
            self.index[:, context] = self._draw()
        row, episode = self.index[:, context], self.episode[:, context]
        for t in range(context + 1, context + steps + 1):
            goes_on = self.dataset.mask[row]
            row, episode = torch.where(goes_on, row + 1, self._draw()), episode + ~goes_on
            self.index[:, t], self.episode[:, t] = row, episode

    def rows(self) -> Sequences:
        """Return the next rows of all streams: (N, K+T+1)."""
        self._advance()
        data, valid, device = self.dataset, self.index >= 0, self.actor.device
        index = self.index.clamp_min(0)
        mask = data.mask[index] & valid
        mask[:, -1] = False

        def take(x: Tensor) -> Tensor:
            return x[index].to(device)

        return Sequences(
            obs=map_obs(take, data.obs),
            act=take(data.act),
            episode=self.episode.to(device, copy=True),
            valid=valid.to(device),
            mask=mask.to(device),
            rew_ext=take(data.rew),
            end=(data.end[index] & mask).to(device),
            trunc=(data.trunc[index] & mask).to(device),
            num_new=self.actor.rollout_length,
        )

    @torch.no_grad()
    def collect(self) -> Rollout:
        """Return the next T recorded steps of each stream, with the present agent's memory, latents and values."""
        rows, model, policy = self.rows(), self.actor.model, self.actor.policy
        z = model.encoder(rows.obs)
        h = rows.new_rows(model.encode_sequence(z, rows))
        z = rows.new_rows(z)
        values = policy(h, policy.see(rows.new_rows(rows.obs), z))[1]
        act = rows.new_steps(rows.act)
        to_go = self.return_to_go[self.index.clamp_min(0)].to(rows.act.device)
        return add_fields(
            Rollout,
            rows,
            sample=policy.dist.sample_of(act),
            logp=torch.zeros(act.shape[:2], device=act.device),
            value_ext=values[..., 0].contiguous(),
            value_int=values[..., 1].contiguous(),
            h=h[:, :-1],
            z=z[:, :-1],
            info={"return_to_go": rows.new_rows(to_go)},
        )

    def state_dict(self) -> dict[str, Any]:
        return {"index": self.index.clone(), "episode": self.episode.clone(), "dataset": self.dataset.digest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on in the streams of a checkpoint, if these are of the same number, window and dataset."""
        if state["dataset"] == self.dataset.digest and state["index"].shape == self.index.shape:
            self.index, self.episode = state["index"].clone(), state["episode"].clone()


class OfflineStream(ExperienceStream):
    """Source of recorded steps, with the replay and the checkpoints of `ExperienceStream`. No environment exists.

    Each rank draws its own episodes.

    Args:
        dataset: the recorded episodes.
        num_envs: streams of a rank, N.

    The other arguments are those of `ExperienceStream`.
    """

    def __init__(
        self,
        dataset: Dataset,
        num_envs: int,
        *,
        rollout_length: int,
        context: int,
        replay_capacity: int,
        replay_priority: CuriousReplayPriority | None,
        replay_dir: str | None,
        seed: int,
    ):
        super().__init__(
            _no_environment,
            rollout_length=rollout_length,
            context=context,
            replay_capacity=replay_capacity,
            replay_priority=replay_priority,
            replay_dir=replay_dir,
            success=None,
            stats_window=1,
            keep_envs=False,
            seed=seed,
        )
        self.dataset, self.num_envs = dataset, num_envs
        self.metrics = {}
        self._open = False

    @property
    def is_open(self) -> bool:
        return self._open

    def open(self, make_actor: MakeActor, *, rank: int = 0, ranks: int = 1) -> None:
        """Make the collector and the replay of one rank."""
        self.rank, self.ranks, self._open = rank, ranks, True
        folder = self.replay_dir and Path(self.replay_dir) / f"rank{rank}"
        self.replay = Replay(self.replay_capacity, self.replay_priority, folder or None)
        actor = make_actor(self.num_envs, self.context, self.rollout_length)
        self.recorded = RecordedCollector(self.dataset, actor)
        actor.policy.fit_returns(self.recorded.return_to_go[self.dataset.first])

    @property
    def source(self) -> RecordedCollector:
        return self.recorded

    def summary(self) -> dict[str, float]:
        """Return the figures of an environment, all nan: nothing was acted."""
        return Episodes(1).summary()

    def close(self) -> None:
        self._open = False
        self.replay.close()

    def begin_update(self) -> None:
        """Seed all generators."""
        self._seed_sampling()

    def state_dict(self, gather: Callable[[Any], list[Any]] = lambda own: [own]) -> dict[str, Any]:
        """See `ExperienceStream.state_dict`."""
        own: dict[str, Any] = {"offline": self.recorded.state_dict()}
        if self.replay.on_disk:
            own["replay"] = self.replay.state_dict()
        state = {"rollouts": self.rollouts, "window": [self.context, self.rollout_length], **own}
        if self.ranks > 1:
            state["ranks"] = gather(own)
        return state if self.replay.on_disk else state | {"replay": self.replay.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a checkpoint of an offline run; from that of an online run, begin with new streams."""
        self.rollouts = state["rollouts"]
        ranks = state.get("ranks", [state])
        same_ranks = len(ranks) == self.ranks
        own = ranks[self.rank] if same_ranks else state
        if "offline" in own and same_ranks:
            self.recorded.load_state_dict(own["offline"])
        self.load_replay(state, own, same_ranks)


def _no_environment(seed: int) -> VectorEnv:
    raise RuntimeError("an offline run has no environment")
