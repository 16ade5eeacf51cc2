"""The algorithm: one update collects, scores and stores a rollout, and yields minibatches to learn from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from worldmodel.envs.metrics import Metric
from worldmodel.experience.collector import Collector
from worldmodel.experience.replay import Replay
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.types import Minibatch, PlannedRollout, ScoredRollout, concatenate

Gather = Callable[[Callable[[], Any]], Any]
"""Function that calls another one with full weights, if the parameters are sharded over ranks."""


@dataclass(frozen=True)
class Batching:
    """Division of a rollout into minibatches."""

    epochs: int  # passes over the rollout
    batch: int  # sequences in a minibatch of the policy
    model_every: int  # minibatches of the policy for each minibatch of the world model
    model_batch: int  # of the sequences in these, those for the world model
    replay_batch: int  # additional replayed sequences for the world model

    def num_minibatches(self, num_envs: int, updates_per_batch: int) -> int:
        """Return the number of optimiser steps in one update."""
        return self.epochs * (num_envs // self.batch) * updates_per_batch


def update(
    agent: CuriousAgent,
    collector: Collector,
    replay: Replay,
    batching: Batching,
    metrics: Sequence[Metric] = (),
    gather: Gather = lambda do: do(),
) -> Iterator[Minibatch]:
    """Collect a rollout and yield the minibatches of one update.

    The caller takes an optimiser step on each minibatch before it requests the next one.

    Args:
        agent: the agent.
        collector: collects the rollout.
        replay: stores the rollout and provides replayed sequences.
        batching: sizes of the minibatches.
        metrics: receive the scored rollout.
        gather: provides full weights outside of the training step.
    """
    agent.begin_rollout()
    rollout = gather(collector.collect)
    scored = gather(lambda: agent.score(rollout))
    for metric in metrics:
        metric.add(scored)
    replay.add(rollout)
    reset = gather(agent.begin_update)

    for _ in range(batching.epochs):
        for index in torch.randperm(len(scored)).split(batching.batch * batching.model_every):
            group = scored[index.to(scored.act.device)]
            model, numbers = group[: batching.model_batch].as_sequences(), None
            if batching.replay_batch:
                replayed, numbers = replay.sample(batching.replay_batch, group.act.device)
                model = concatenate([model, replayed])
            for real in group.split(batching.batch):
                for policy in policy_batches(agent, real, replay, gather):
                    yield Minibatch(model, policy, numbers, reset)
                    model = numbers = None  # the world model learns once from each group
                    reset = []


def policy_batches(
    agent: CuriousAgent, real: ScoredRollout, replay: Replay, gather: Gather
) -> Iterator[ScoredRollout | PlannedRollout]:
    """Yield minibatches of the policy: the real steps, or rollouts imagined from replayed ones."""
    imagination = agent.imagination
    if imagination is None:
        yield real
        return
    past, _ = replay.sample(imagination.num_start_states, real.act.device)
    for i in range(imagination.updates_per_batch):
        if i == 0 or imagination.renewed:
            imagined = gather(lambda: imagination.rollout(agent, past))
        yield imagined
