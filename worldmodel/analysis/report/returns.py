"""What the agent earns: episodes of its own policy, greedy and sampled, and of a random one."""

from __future__ import annotations

from typing import Any

import numpy as np

from worldmodel.analysis.report.context import Played, Study
from worldmodel.analysis.report.section import Figure, Section, Table, canvas
from worldmodel.analysis.report.skill import rounded
from worldmodel.analysis.statistics import ratio_interval
from worldmodel.errors import ConfigError
from worldmodel.training.checkpoint import run_dir_of
from worldmodel.training.learning_curve import read_metrics

KEYS = ("return_mean", "return_ci", "success", "success_ci", "length", "coverage", "refused")


def returns(study: Study, sticky: float) -> Section:
    """Greedy, sampled and random; the sampled policy also with sticky actions (or without, where it was trained with
    them), and on levels it has not seen, where it was trained on some only."""
    env = study.cfg.env
    plays = {name: study.play(name) for name in ("greedy", "sampled", "random")}
    other = 0.0 if env.get("sticky") else sticky
    if other or env.get("sticky"):
        plays[f"sampled_sticky_{other:g}"] = study.play("sampled", sticky=other)
    if env.get("levels") and not env.get("held_out"):
        plays["sampled_held_out_levels"] = study.play("sampled", held_out=True)
    numbers = {name: summary(played, study.cfg.data.success, study.seed) for name, played in plays.items()}
    words = (
        f"{study.episodes} episodes of each behaviour, counted without preferring short ones; intervals are 95 % "
        "bootstraps over episodes. Refused are episodes won by their very first step: they had been solved before the "
        "agent came, and don't count. Coverage is the mean number of different places in an episode."
    )
    if (at := logged(study)) is not None:
        numbers["training"] = dict.fromkeys(KEYS) | {"return_mean": at}
        words += (
            f" Training is what was logged at the checkpoint's step: the mean of the {study.cfg.data.stats_window} "
            "episodes before it, of a policy that was still changing."
        )
    rows = [[name, *(x[key] for key in KEYS)] for name, x in numbers.items()]
    return Section("Returns", numbers, [Table(words, ["behaviour", *KEYS], rows)], [_picture(plays)])


def summary(played: Played, threshold: float | None, seed: int) -> dict[str, Any]:
    """Means over a behaviour's episodes with their intervals. Raises ConfigError if all had been solved before."""
    tally = played.tally
    fair = ~solved_at_start(tally.ret, tally.length, threshold)
    if not fair.any():
        raise ConfigError(f"episodes={len(fair)}: all of them are won by their first step, there is nothing to judge")
    won = None if threshold is None else (tally.ret[fair] > threshold).astype(float)

    def interval(x: np.ndarray) -> list[float] | None:
        found = ratio_interval(x, np.ones_like(x), seed)
        return found and [rounded(bound) for bound in found]

    return {
        "return_mean": rounded(tally.ret[fair].mean()),
        "return_ci": interval(tally.ret[fair]),
        "success": None if won is None else rounded(won.mean()),
        "success_ci": None if won is None else interval(won),
        "length": rounded(tally.length[fair].mean()),
        "length_ci": interval(tally.length[fair]),
        "coverage": rounded(coverage(played)),
        "episodes": int(fair.sum()),
        "refused": int((~fair).sum()),
    }


def logged(study: Study) -> float | None:
    """return_ext of the run at the checkpoint's step; None where the run left no such row, or had ended no episode."""
    path = run_dir_of(study.checkpoint) / "metrics.csv"
    metrics = read_metrics(path) if path.is_file() else {}
    if not metrics:
        return None
    at = metrics["return_ext"][metrics["env_steps"] == int(study.module.env_steps)]
    return rounded(at[-1]) if len(at) and np.isfinite(at[-1]) else None


def solved_at_start(ret: np.ndarray, length: np.ndarray, threshold: float | None) -> np.ndarray:
    """(episodes,) bool: won by the first step. Where success isn't defined, none."""
    return np.zeros(len(ret), dtype=bool) if threshold is None else (length == 1) & (ret > threshold)


def coverage(played: Played) -> float | None:
    """Mean number of different places that an episode's transitions led to; None where places aren't told."""
    steps = played.steps
    if not steps.place.shape[1]:
        return None
    visits = np.unique(np.column_stack([steps.episode, steps.place]), axis=0)
    return len(visits) / len(np.unique(steps.episode))


def _picture(plays: dict[str, Played]) -> Figure:
    drawing, (left, right) = canvas(2)
    for axis, key, label in ((left, "ret", "return"), (right, "length", "length (steps)")):
        for name, played in plays.items():
            values = np.sort(getattr(played.tally, key))
            axis.step(values, np.arange(1, len(values) + 1) / len(values), where="post", label=name)
        axis.set(xlabel=label, ylabel="share of episodes", ylim=(0, 1.02))
    right.legend(fontsize=7)
    return Figure.of(
        drawing,
        "How returns and lengths are spread: the share of a behaviour's episodes that came to no more than the value "
        "below, all episodes counted.",
    )
