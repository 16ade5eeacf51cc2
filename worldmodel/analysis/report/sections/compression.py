"""Compression of the agent's trajectories with its own predictions and with general coders."""

from __future__ import annotations

from itertools import islice
from typing import Any

import gymnasium as gym
import torch

from worldmodel.analysis.probes.activations import read
from worldmodel.analysis.probes.observation import IDEAL_OBSERVER, fit_observation_head, ideal_bits
from worldmodel.analysis.probes.world_coder import WorldCoder, compression_report, observation_rates, rates_figure
from worldmodel.analysis.report.context import SEED_OFFSET, EvaluationContext
from worldmodel.analysis.report.section import Figure, Section, Table
from worldmodel.analysis.report.skill import rounded
from worldmodel.learner.run_episodes import EpisodeStats, run_episodes
from worldmodel.training.build import build_env
from worldmodel.types import Rollout

FRESH, FITTED = 500_000, 600_000  # added to the seed of coded rollouts, and of those to which a head is fitted
ROLLOUTS = 6  # coded ones, from the beginning of the streams; fewer would measure the coder's overhead
TO_FIT, FIT_STEPS = 40, 4000  # rollouts and steps of a head's fit; a head overfits 50 episodes


def compression(context: EvaluationContext) -> Section | None:
    """Compression of fresh episodes of the sampled policy.

    None where observations are not symbols or actions are not one discrete number. Without the packages of the extra
    `probes`, the section states which one is missing.
    """
    recorded = context.episode_set("sampled").recorded
    if recorded[0].obs is None or not isinstance(context.act_space, gym.spaces.Discrete):
        return None
    context.progress("compression")
    model = context.agent.model
    head = model.observation or fit_observation_head(
        model, read(model, fresh(context, FITTED, TO_FIT)), context.spec.obs_space, steps=FIT_STEPS, seed=context.seed
    )
    window = {"context": context.cfg.data.context, "rollout_length": context.cfg.data.rollout_length}
    coder = WorldCoder(context.agent, head, context.spec.obs_space, context.act_space, **window)
    rolls = fresh(context, FRESH, ROLLOUTS)
    try:
        report = compression_report(coder, rolls)
    except ImportError as error:
        reason = f"{error.name} is not installed"
        return Section("Compression", {"reason": reason}, text=f"Not available: {reason}.")
    known = set(IDEAL_OBSERVER) <= set(rolls[0].info or {})
    ideal = float(ideal_bits(read(model, rolls)).nansum()) if known else None
    rates = {
        "observations": observation_rates(report, ideal),
        "observations, ends, actions": {
            "model": report["model"],
            "Markov": report["markov"],
            **{name: report[name] for name in ("xz", "zstd", "gzip")},
        },
    }
    numbers: dict[str, Any] = {k: x if isinstance(x, str | int) else rounded(x) for k, x in report.items()}
    numbers["bit_exact"] = True  # else `compression_report` would have raised
    numbers["over_cross_entropy"] = rounded(report["model"] / report["model_cross_entropy"])
    numbers["times_smaller"] = {
        what: {name: rounded(x / by["model"]) for name, x in by.items() if name != "model"}
        for what, by in rates.items()
    }
    words = (
        "Bits a step, and their ratio to the model's. Fresh behaviour of the sampled policy "
        f"({report['rows']:,} steps), arithmetic-coded with the model's predictions and decoded, bit for bit; the file "
        f"is {numbers['over_cross_entropy']:.4f} times the model's own cross-entropy. The observation head was "
        f"{report['head']}. The receiver must have the model, {report['model_size_bytes'] / 1e6:.1f} MB, which is not "
        "counted; the Markov coder (the best of its orders) and the others adapt to the data."
    )
    rows = [[what, name, x, x / by["model"]] for what, by in rates.items() for name, x in by.items()]
    table = Table(words, ["of", "coder", "bits a step", "times the model's"], rows)
    return Section("Compression", numbers, [table], [Figure.of(rates_figure(rates), "The same as bars.")])


def fresh(context: EvaluationContext, offset: int, rollouts: int) -> list[Rollout]:
    """Return the first rollouts of the sampled policy in new environments."""
    torch.manual_seed(context.seed)
    env = build_env(context.cfg, seed=SEED_OFFSET + offset + context.seed, num_envs=context.num_envs)
    data = context.cfg.data
    stats = EpisodeStats(
        rollouts * data.rollout_length * context.num_envs
    )  # an upper bound of the episodes in these steps
    try:
        playing = run_episodes(
            context.agent, env, stats, context=data.context, rollout_length=data.rollout_length, greedy=False
        )
        return [roll for roll, _ in islice(playing, rollouts)]
    finally:
        env.close()
