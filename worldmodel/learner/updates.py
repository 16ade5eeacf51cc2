"""The algorithm: one update collects, scores and stores a rollout, and yields minibatches to learn from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from worldmodel.envs.metrics import Metric
from worldmodel.experience.collector import Source
from worldmodel.experience.replay import Replay
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.types import Minibatch, PlannedRollout, ScoredRollout, concatenate

Gather = Callable[[Callable[[], Any]], Any]
"""Function that calls another one with full weights, if the parameters are sharded over ranks."""


@dataclass(frozen=True)
class Batching:
    """Division of a rollout into minibatches."""

    epochs: int  # passes over the rollout
    minibatches: int  # of the policy, in each pass
    model_every: int  # minibatches of the policy for each minibatch of the world model
    model_batch: int | None  # new sequences in a minibatch of the world model; None: all, once in each pass
    replay_batch: int  # additional replayed sequences for the world model

    def num_minibatches(self, updates_per_batch: int) -> int:
        """Return the number of optimiser steps in one update."""
        return self.epochs * self.minibatches * updates_per_batch


def update(
    agent: CuriousAgent,
    source: Source,
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
        source: collects the rollout, or makes one of recorded steps.
        replay: stores the rollout and provides replayed sequences.
        batching: sizes of the minibatches.
        metrics: receive the scored rollout.
        gather: provides full weights outside of the training step.
    """
    agent.begin_rollout()
    with evaluating(agent.model):
        began = time.perf_counter()
        rollout = gather(source.collect)
        collect_s = time.perf_counter() - began
        scored = gather(lambda: agent.score(rollout, source.acts))
    agent.metrics["collect_s"] = collect_s
    for metric in metrics:
        metric.add(scored)
    replay.add(rollout)
    reset, ratio = gather(agent.begin_update), agent.value_ratio

    turns = batching.minibatches // batching.model_every  # of the world model, in each pass
    for _ in range(batching.epochs):
        sequences = torch.randperm(len(scored)).to(scored.act.device)
        parts = split_policy(agent, scored, sequences, batching.minibatches)
        for index in sequences.chunk(turns):
            model, numbers = scored[index[: batching.model_batch]].as_sequences(), None
            if batching.replay_batch:
                replayed, numbers = replay.sample(batching.replay_batch, index.device)
                model = concatenate([model, replayed])
            for real in islice(parts, batching.model_every):
                usable = real if agent.learns_from(source) else None
                for policy in policy_batches(agent, usable, replay, gather):
                    if model is None and policy is None:
                        continue
                    yield Minibatch(model, policy, numbers, reset, ratio)
                    model = numbers = ratio = None  # the world model learns once in each turn
                    reset = []


def split_policy(agent: CuriousAgent, scored: ScoredRollout, sequences: Tensor, parts: int) -> Iterator[ScoredRollout]:
    """Yield the minibatches of the policy in one pass.

    They consist of single steps of all sequences, which are less correlated than the steps of one sequence. If the
    policy's gradient reaches the memory, they consist of whole sequences in the given order.
    """
    if agent.policy.memory_gradient:
        yield from (scored[index] for index in sequences.chunk(parts))
        return
    order = torch.randperm(len(scored) * scored.num_new).to(sequences.device)
    yield from (scored.single_steps(index) for index in order.chunk(parts))


def policy_batches(
    agent: CuriousAgent, real: ScoredRollout | None, replay: Replay, gather: Gather
) -> Iterator[ScoredRollout | PlannedRollout | None]:
    """Yield minibatches of the policy: the real steps, or rollouts imagined from replayed ones.

    A minibatch is None once the policy is above the limit of its KL divergence from the policy of the rollout, and
    where the policy learns neither from the real steps (None) nor in imagination.
    """
    imagination = agent.imagination
    if imagination is None:
        yield real if agent.within_kl_limit() else None
        return
    past, _ = replay.sample(imagination.num_start_states, agent.device)
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
