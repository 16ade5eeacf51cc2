"""Ranking and presets of a tuning, from results.csv: ranking.md, ranking.csv and presets/<signal>.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from worldmodel.analysis.report.section import Table
from worldmodel.errors import ConfigError
from worldmodel.experiments.tune.ranking import KEYS, Place, Tuned, draws_table, ranking, ranking_table
from worldmodel.experiments.tune.results import Run, read_runs
from worldmodel.files import write_csv, write_text


def write_report(out: Path, worlds: Sequence[str], seeds: int) -> Table:
    """Write the ranking so far and a preset of each signal, and return the ranking.

    Args:
        out: folder with results.csv.
        worlds: names of both stages.
        seeds: runs of each draw; missing ones count as 0.

    Raises:
        ConfigError: where there are no results.
    """
    runs = read_runs(out / "results.csv")
    ranked = ranking(runs, seeds)
    if not ranked:
        raise ConfigError(f"out={out}: results.csv has no run of stage 1 yet")
    table = ranking_table(ranked, worlds)
    write_csv(out / "ranking.csv", [table.header, *table.rows])
    tables = [table, *(draws_table(runs, ranked, seeds, stage, world) for stage, world in enumerate(worlds, 1))]
    body = "\n\n".join(f"**{t.caption}**\n\n{t.markdown()}" for t in tables if t.rows)
    write_text(out / "ranking.md", f"{body}\n\n{effort(runs)}\n")
    for tuned in ranked:
        write_text(out / "presets" / f"{tuned.signal}.yaml", preset(tuned, runs, worlds))
    return table


def effort(runs: Sequence[Run]) -> str:
    """Return number, steps, CPU time and code of the runs in one sentence."""
    steps, cpu = (sum(float(run.about[key] or 0) for run in runs) for key in ("env_steps", "cpu_s"))
    code = ", ".join(sorted({run.about["git"] or "unknown" for run in runs}))
    return f"{len(runs)} runs, {steps:,.0f} environment steps, {cpu / 3600:.1f} CPU hours; code {code}."


def preset(tuned: Tuned, runs: Sequence[Run], worlds: Sequence[str]) -> str:
    """Return a preset as YAML: a method of a suite (`overrides`), and its provenance."""
    mine = [run for run in runs if (run.signal, run.draw) == (tuned.signal, tuned.draw)]
    overrides = mine[0].about["overrides"].split(" ")
    measured = {
        world: dict(zip((*KEYS, "seeds"), (*place.score, place.seeds), strict=True))
        for world, place in zip(worlds, (tuned.first, tuned.second), strict=True)
        if isinstance(place, Place)
    }
    provenance = {
        "signal": tuned.signal,
        "draw": tuned.draw,
        "seeds": sorted({run.seed for run in mine}),
        "code": sorted({run.about["git"] for run in mine}),
        "measured": measured,
    }
    head = f"# Tuned by worldmodel.tune. python -m worldmodel.train experiment=doorkey {' '.join(overrides)}\n"
    return head + OmegaConf.to_yaml(OmegaConf.create({"overrides": overrides, "provenance": provenance}))
