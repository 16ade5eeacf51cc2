"""Intrinsic reward by place, time and event."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from worldmodel.analysis.report.canvas import canvas
from worldmodel.analysis.report.context import EvaluationContext
from worldmodel.analysis.report.section import Figure, Section, Table
from worldmodel.analysis.report.skill import rounded
from worldmodel.analysis.report.transitions import Transitions
from worldmodel.analysis.statistics import ratio_interval
from worldmodel.training.checkpoint import run_dir_of
from worldmodel.training.learning_curve import read_metrics

TENTHS = 10
POINTS = 50  # of a curve, at most


def curiosity(context: EvaluationContext) -> Section:
    """Intrinsic reward of the sampled policy, beside that of the random one."""
    own, random = context.episode_set("sampled").steps, context.episode_set("random").steps
    numbers: dict[str, Any] = {
        name: {
            "rew_int": rounded(steps.rew_int.mean()),
            "rew_int_ci": _interval(steps, context.seed),
            "by_event": by_event(steps, context.act_space),
            "in_episode": in_episode(steps),
            "places": places(steps),
        }
        for name, steps in (("sampled", own), ("random", random))
    }
    numbers["over_training"] = over_training(context.checkpoint)
    figures = [_timeline(own)]
    if own.place.shape[1] in (1, 2):
        figures.append(heat_map({"sampled behaviour": own, "random behaviour": random}))
    figures.append(_decline(numbers))
    return Section("Curiosity", numbers, [_event_table(numbers)], figures)


def by_event(steps: Transitions, space: gym.Space) -> dict[str, Any]:
    """For each event: its share of transitions, their mean rew_int, and their share of all positive rew_int.

    Events may coincide. Events of actions exist where actions are one discrete number.
    """
    events = {"rewarded": steps.rew_ext != 0, "end": steps.end, "truncated": steps.trunc}
    if isinstance(space, gym.spaces.Discrete):
        events |= {f"action {a}": steps.act == a for a in range(int(space.n))}
    if steps.place.shape[1]:
        events["new place in the episode"] = first_visits(steps)
    paid = np.maximum(steps.rew_int, 0.0)
    total = float(paid.sum())
    return {
        name: {
            "share": rounded(where.mean()),
            "rew_int": rounded(steps.rew_int[where].mean()) if where.any() else None,
            "share_of_rew_int": rounded(paid[where].sum() / total) if total else None,
        }
        for name, where in events.items()
    }


def first_visits(steps: Transitions) -> np.ndarray:
    """(n,) bool: the first transition of its episode to this place."""
    rows = np.column_stack([steps.episode, steps.place])
    first = np.zeros(len(steps), dtype=bool)
    first[np.unique(rows, axis=0, return_index=True)[1]] = True
    return first


def in_episode(steps: Transitions) -> list[float | None]:
    """Return the mean rew_int in each tenth of the longest episode's length."""
    age = steps.age
    which = np.minimum(age * TENTHS // (age.max() + 1), TENTHS - 1)
    count, total = (np.bincount(which, w, TENTHS) for w in (None, steps.rew_int))
    return [rounded(t / c) if c else None for t, c in zip(total, count, strict=True)]


def places(steps: Transitions) -> list[dict[str, Any]] | None:
    """Return visits and mean rew_int of each place; None where the environment does not report places."""
    if not steps.place.shape[1]:
        return None
    cells, which, count = np.unique(steps.place, axis=0, return_inverse=True, return_counts=True)
    total = np.bincount(which.ravel(), steps.rew_int)
    return [
        {"place": [rounded(x) for x in cell], "visits": int(n), "rew_int": rounded(t / n)}
        for cell, n, t in zip(cells, count, total, strict=True)
    ]


def over_training(checkpoint: Path) -> dict[str, list[float | None]] | None:
    """Return curves of the training run, thinned to `POINTS` rows; None without metrics.csv."""
    path = run_dir_of(checkpoint) / "metrics.csv"
    metrics = read_metrics(path) if path.is_file() else {}
    if not metrics:
        return None
    rows = np.unique(np.linspace(0, len(metrics["env_steps"]) - 1, POINTS).astype(int))
    return {k: [rounded(x) for x in metrics[k][rows]] for k in ("env_steps", "rew_int", "rew_int_raw") if k in metrics}


def _interval(steps: Transitions, seed: int) -> list[float | None] | None:
    """Interval of the mean rew_int of a step, over episodes."""
    found = ratio_interval(np.bincount(steps.episode, steps.rew_int), np.bincount(steps.episode), seed)
    return found and [rounded(x) for x in found]


def _event_table(numbers: dict[str, Any]) -> Table:
    own, random = (numbers[name]["by_event"] for name in ("sampled", "random"))
    rows = [
        [name, x["share"], x["rew_int"], x["share_of_rew_int"], random[name]["share"], random[name]["share_of_rew_int"]]
        for name, x in own.items()
    ]
    head = ["event", "share of steps", "mean rew_int", "share of rew_int", "random: share of steps", "of rew_int"]
    words = "Intrinsic reward by event: the event's share of steps, and its share of all positive intrinsic reward."
    return Table(words, head, rows)


def _timeline(steps: Transitions) -> Figure:
    drawing, (axis,) = canvas(1, width=8.4, height=2.4)
    first = steps[steps.episode == steps.episode[0]]
    axis.plot(first.rew_int, lw=1)
    for where, colour, label in ((first.rew_ext != 0, "C2", "reward"), (first.end | first.trunc, "C3", "the end")):
        for t in np.flatnonzero(where)[:20]:
            axis.axvline(t, color=colour, lw=1, ls="--", label=label)
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    if handles:
        axis.legend(handles.values(), handles.keys(), fontsize=8)
    axis.set(xlabel="step of the episode", ylabel="rew_int")
    return Figure.of(
        drawing, "The intrinsic reward, normalised and scaled, along the first counted episode of the sampled policy."
    )


def heat_map(found: dict[str, Transitions]) -> Figure:
    """Mean rew_int by place, a panel for each entry, over the same places. A place has one or two coordinates."""
    drawing, axes = canvas(len(found), width=3.8, height=3.4)
    at = {name: np.pad(steps.place, ((0, 0), (0, 2 - steps.place.shape[1]))) for name, steps in found.items()}
    low, high = (f([f(x, axis=0) for x in at.values()], axis=0) for f in (np.min, np.max))
    whole = (high - low).max() < 100 and all(np.issubdtype(x.dtype, np.integer) for x in at.values())
    size = (high - low + 1).astype(int) if whole else np.array([32, 32])
    half = 0.5 if whole else 0.0  # a cell is centred on its coordinates
    bounds = [(a - half, b + half) for a, b in zip(low, high, strict=True)]
    for axis, (name, steps) in zip(axes, found.items(), strict=True):
        x, y = at[name].T.astype(float)
        kwargs = {"bins": size, "range": bounds}
        total, count = np.histogram2d(x, y, weights=steps.rew_int, **kwargs)[0], np.histogram2d(x, y, **kwargs)[0]
        mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
        (left, right), (bottom, top) = bounds
        extent = (left, right, top, bottom) if whole else (left, right, bottom, top)  # rows of a grid count downwards
        shown = axis.imshow(mean.T, origin="upper" if whole else "lower", extent=extent, aspect="auto", cmap="viridis")
        drawing.colorbar(shown, ax=axis, shrink=0.8)
        axis.set_title(name)
        axis.grid(False)
    return Figure.of(
        drawing,
        "Intrinsic reward by place: the mean over the transitions that end there, over all episodes and levels; "
        "white where there are none.",
    )


def _decline(numbers: dict[str, Any]) -> Figure:
    drawing, (left, right) = canvas(2)
    for name in ("sampled", "random"):
        values = [np.nan if x is None else x for x in numbers[name]["in_episode"]]
        left.plot(np.arange(TENTHS) + 1, values, marker=".", label=name)
    left.set(xlabel="tenth of the longest episode", ylabel="mean rew_int")
    left.legend(fontsize=8)
    log = numbers["over_training"]
    if log:
        for key, axis in (("rew_int", right), ("rew_int_raw", right.twinx())):
            if key in log:
                values = [np.nan if x is None else x for x in log[key]]
                axis.plot(log["env_steps"], values, color="C0" if key == "rew_int" else "C1", label=key)
                axis.set_ylabel(key)
    right.set(xlabel="environment steps of training")
    return Figure.of(
        drawing,
        "Decline of the intrinsic reward. Left: its mean by the time in the episode; right: its curve over training, "
        "normalised (blue) and raw (orange), empty without metrics.csv.",
    )
