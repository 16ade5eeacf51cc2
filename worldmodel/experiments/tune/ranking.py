"""Ranking of draws and signals, and the presets that follow from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from worldmodel.analysis.report.section import Table
from worldmodel.experiments.tune.results import FIGURES, Run

KEYS = ("auc", "door_success", "rooms")  # a tie of one is decided by the next
DIGITS = 3  # differences below are ties


class Place(NamedTuple):
    """A draw of a signal on one stage. `score` are means over seeds of KEYS, by which draws are compared."""

    signal: str
    draw: int
    score: tuple[float, ...]
    seeds: int


class Tuned(NamedTuple):
    """Result of a signal: the chosen draw, and its places on the stages; the second is None for no finalist."""

    signal: str
    draw: int
    first: Place
    shipped: Place | None  # draw 0 on the first stage
    second: Place | None


def places(runs: Iterable[Run], stage: int, seeds: int) -> list[Place]:
    """Return the draws of a stage, the best first.

    A missing run counts as 0, as does a figure that is not measured, such as success given a door that no episode
    passed. Draws that tie in all figures are in the order of their numbers: the shipped preset is first.
    """
    by_draw: dict[tuple[str, int], list[Run]] = {}
    for run in runs:
        if run.stage == stage:
            by_draw.setdefault((run.signal, run.draw), []).append(run)
    found = []
    for (signal, draw), group in by_draw.items():
        table = np.nan_to_num([[run.figures[FIGURES.index(key)] for key in KEYS] for run in group])
        score = tuple(round(float(x), DIGITS) for x in table.sum(0) / max(seeds, len(group)))
        found.append(Place(signal, draw, score, len(group)))
    return sorted(found, key=lambda x: ([-s for s in x.score], x.draw))


def finalists(runs: Sequence[Run], signals: int, draws: int, seeds: int) -> dict[str, list[int]]:
    """Return the best draws of the best signals of stage 1; signals are compared by their best draw."""
    found: dict[str, list[int]] = {}
    for place in places(runs, 1, seeds):
        if place.signal in found or len(found) < signals:
            found.setdefault(place.signal, []).append(place.draw)
    return {signal: chosen[:draws] for signal, chosen in found.items()}


def ranking(runs: Sequence[Run], seeds: int) -> list[Tuned]:
    """Return all signals, the best first: finalists by stage 2, ties and the others by stage 1."""
    one, two = places(runs, 1, seeds), places(runs, 2, seeds)
    order = {(x.signal, x.draw): i for i, x in enumerate(one)}
    second: dict[str, Place] = {}
    for x in sorted(two, key=lambda x: ([-s for s in x.score], order.get((x.signal, x.draw), len(order)))):
        second.setdefault(x.signal, x)
    found: dict[str, Tuned] = {}
    for signal in [*second, *dict.fromkeys(x.signal for x in one)]:
        mine = [x for x in one if x.signal == signal]
        if signal in found or not mine:
            continue
        draw = second[signal].draw if signal in second else mine[0].draw
        first = next((x for x in mine if x.draw == draw), mine[0])
        shipped = next((x for x in mine if x.draw == 0), None)
        found[signal] = Tuned(signal, draw, first, shipped, second.get(signal))
    return list(found.values())


def ranking_table(ranked: Sequence[Tuned], worlds: Sequence[str]) -> Table:
    """Return the ranking; the figures of a stage are auc, success given a door, rooms, and the number of seeds."""
    rows = [
        [
            str(i),
            x.signal,
            str(x.draw),
            *_words(x.second),
            *_words(x.first),
            f"{x.shipped.score[0]:.3f}" if x.shipped else "–",
        ]
        for i, x in enumerate(ranked, 1)
    ]
    names = ("return area", "door success", "rooms", "seeds")
    columns = [f"{world}: {name}" for world in reversed(worlds) for name in names]
    return Table("Ranking of signals", ["", "signal", "draw", *columns, f"{worlds[0]}: return area, shipped"], rows)


def draws_table(runs: Sequence[Run], ranked: Sequence[Tuned], seeds: int, stage: int, world: str) -> Table:
    """Return the mean area under the return curve of each draw of each signal."""
    found = {(x.signal, x.draw): x for x in places(runs, stage, seeds)}
    draws = sorted({draw for _, draw in found})
    rows = [
        [x.signal, *(f"{found[x.signal, d].score[0]:.3f}" if (x.signal, d) in found else "–" for d in draws)]
        for x in ranked
        if any(signal == x.signal for signal, _ in found)
    ]
    return Table(f"{world}: return area by draw", ["signal", *map(str, draws)], rows)


def _words(place: Place | None) -> list[str]:
    if place is None:
        return ["–"] * (len(KEYS) + 1)
    return [f"{place.score[0]:.3f}", f"{place.score[1]:.2f}", f"{place.score[2]:.2f}", str(place.seeds)]
