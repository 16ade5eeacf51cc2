"""Returns of the agent's policy, greedy and sampled, and of a random policy."""

from __future__ import annotations

import numpy as np

from worldmodel.analysis.report.atari import human_normalised
from worldmodel.analysis.report.canvas import canvas
from worldmodel.analysis.report.context import EpisodeSet, EvaluationContext
from worldmodel.analysis.report.section import Figure, Section, Table
from worldmodel.analysis.report.skill import rounded
from worldmodel.analysis.report.summary import summary
from worldmodel.training.checkpoint import run_dir_of
from worldmodel.training.learning_curve import read_metrics

KEYS = ("return_mean", "return_ci", "success", "success_ci", "length", "coverage", "refused", "cut")


def returns(context: EvaluationContext, sticky: float) -> Section:
    """Returns of the greedy, the sampled and the random policy.

    The sampled policy also acts with sticky actions (or without, where it was trained with them), and on held-out
    levels, where it was trained on a limited number.
    """
    env = context.cfg.env
    plays = {name: context.episode_set(name) for name in ("greedy", "sampled", "random")}
    other = 0.0 if env.get("sticky") else sticky
    if other or env.get("sticky"):
        plays[f"sampled_sticky_{other:g}"] = context.episode_set("sampled", sticky=other)
    if env.get("levels") and not env.get("held_out"):
        plays["sampled_held_out_levels"] = context.episode_set("sampled", held_out=True)
    numbers = {
        name: summary(episode_set, context.cfg.data.success, context.seed) for name, episode_set in plays.items()
    }
    words = (
        f"{context.episodes} episodes of each behaviour, counted without preferring short ones; intervals are 95 % "
        "bootstraps over episodes. Refused are episodes that begin solved, by the environment's own mark; they do "
        f"not count. Cut are episodes truncated after {context.longest_episode:,} steps (max_episode_steps); they "
        "count with their return until then. Coverage is the mean number of different places in an episode."
    )
    if (at := logged(context)) is not None:
        numbers["training"] = dict.fromkeys(KEYS) | {"return_mean": at}
        words += (
            f" Training is the return logged at the checkpoint's step: the mean of the {context.cfg.data.stats_window} "
            "episodes before it, of a policy that was still changing."
        )
    keys = list(KEYS)
    if human_normalised(str(env.get("id", "")), 0.0) is not None:
        keys.insert(2, "human_normalised")
        words += " Human-normalised is 0 for the mean return of a random player and 1 for that of a human one."
        for x in numbers.values():
            x["human_normalised"] = rounded(human_normalised(str(env.get("id", "")), x["return_mean"]))
    rows = [[name, *(x[key] for key in keys)] for name, x in numbers.items()]
    header = ["behaviour", *(key.replace("_", " ") for key in keys)]
    return Section("Returns", numbers, [Table(words, header, rows)], [_picture(plays)])


def logged(context: EvaluationContext) -> float | None:
    """return_ext of the run at the checkpoint's step; None without such a row, or without a finished episode."""
    path = run_dir_of(context.checkpoint) / "metrics.csv"
    metrics = read_metrics(path) if path.is_file() else {}
    if not metrics:
        return None
    at = metrics["return_ext"][metrics["env_steps"] == int(context.agent.env_steps)]
    return rounded(at[-1]) if len(at) and np.isfinite(at[-1]) else None


def _picture(plays: dict[str, EpisodeSet]) -> Figure:
    drawing, (left, right) = canvas(2)
    for axis, key, label in ((left, "ret", "return"), (right, "length", "length (steps)")):
        for name, episode_set in plays.items():
            values = np.sort(getattr(episode_set.stats, key))
            axis.step(values, np.arange(1, len(values) + 1) / len(values), where="post", label=name)
        axis.set(xlabel=label, ylabel="share of episodes", ylim=(0, 1.02))
    right.legend(fontsize=7)
    return Figure.of(
        drawing,
        "Distribution of returns and lengths: the share of a behaviour's episodes, all of them counted, that do not "
        "exceed a value.",
    )
