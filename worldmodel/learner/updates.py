"""The algorithm: one update collects, scores and stores a rollout, and yields minibatches to learn from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

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

    The caller takes an optimiser step on each minibatch before it requests the next one. With a limit of the policy's
    KL divergence it also calls `agent.record_step`, and there may be fewer minibatches.

    Args:
        agent: the agent.
        collector: collects the rollout.
        replay: stores the rollout and provides replayed sequences.
        batching: sizes of the minibatches.
        metrics: receive the scored rollout.
        gather: provides full weights outside of the training step.
    """
    agent.begin_rollout()
    with evaluating(agent.model):
        began = time.perf_counter()
        rollout = gather(collector.collect)
        collect_s = time.perf_counter() - began
        scored = gather(lambda: agent.score(rollout))
    agent.metrics["collect_s"] = collect_s
    for metric in metrics:
        metric.add(scored)
    replay.add(rollout)
    reset, ratio = gather(agent.begin_update), agent.value_ratio

    for _ in range(batching.epochs):
        for index in torch.randperm(len(scored)).split(batching.batch * batching.model_every):
            group = scored[index.to(scored.act.device)]
            model, numbers = group[: batching.model_batch].as_sequences(), None
            if batching.replay_batch:
                replayed, numbers = replay.sample(batching.replay_batch, group.act.device)
                model = concatenate([model, replayed])
            for real in group.split(batching.batch):
                for policy in policy_batches(agent, real, replay, gather):
                    if model is None and policy is None:
                        continue
                    yield Minibatch(model, policy, numbers, reset, ratio)
                    model = numbers = ratio = None  # the world model learns once from each group
                    reset = []


def policy_batches(
    agent: CuriousAgent, real: ScoredRollout, replay: Replay, gather: Gather
) -> Iterator[ScoredRollout | PlannedRollout | None]:
    """Yield minibatches of the policy: the real steps, or rollouts imagined from replayed ones.

    A minibatch is None once the policy is above the limit of its KL divergence from the policy of the rollout.
    """
    imagination = agent.imagination
    if imagination is None:
        yield real if agent.within_kl_limit() else None
        return
    past, _ = replay.sample(imagination.num_start_states, real.act.device)
    for i in range(imagination.updates_per_batch):
        if i == 0 or imagination.renewed:
            with evaluating(agent.model):
                imagined = gather(lambda: imagination.rollout(agent, past))
            agent.kl = None
        yield imagined if agent.within_kl_limit() else None


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Set evaluation mode, so that acting and imagining are without dropout, and afterwards the mode of before."""
    mode = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(mode)
