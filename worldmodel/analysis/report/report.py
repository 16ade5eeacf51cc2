"""A checkpoint's report: its parts in order, their numbers, and the page that shows them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from worldmodel.analysis.report import arguments
from worldmodel.analysis.report.compression import compression
from worldmodel.analysis.report.context import Study
from worldmodel.analysis.report.curiosity import curiosity
from worldmodel.analysis.report.imagination import imagination
from worldmodel.analysis.report.known_answer import known_answer
from worldmodel.analysis.report.memory import memory
from worldmodel.analysis.report.page import page
from worldmodel.analysis.report.prediction import imagines_latents, prediction
from worldmodel.analysis.report.returns import returns, summary
from worldmodel.analysis.report.section import Section
from worldmodel.analysis.report.skill import rounded
from worldmodel.analysis.report.video import video
from worldmodel.errors import ConfigError
from worldmodel.files import write_json, write_text
from worldmodel.training.checkpoint import run_dir_of
from worldmodel.training.config import fill
from worldmodel.training.loading import load_agent
from worldmodel.training.run_record import RunRecord

PARTS: dict[str, Callable[..., Section | None]] = {
    "returns": returns,
    "prediction": prediction,
    "curiosity": curiosity,
    "memory": memory,
    "known_answer": known_answer,
    "compression": compression,
    "imagination": imagination,
    "video": video,
}
"""By their names in `parts`, in the order of the page. Each takes the study and those options that it names; None
where it has nothing to say about this environment."""

USUAL = tuple(part for part in PARTS if part != "compression")
"""What a report holds unless asked: compression has to fit an observation head where the model has none of its own."""


class Judged(NamedTuple):
    """One checkpoint's part of the report."""

    label: str
    numbers: dict[str, Any]  # as in report.json
    sections: dict[str, Section]


def evaluate(
    checkpoint: str | Path | Sequence[str | Path],
    *,
    parts: Sequence[str] = USUAL,
    episodes: int = 100,
    seed: int = 0,
    num_envs: int = 25,
    horizons: Sequence[int] = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32),
    sticky: float = 0.25,
    device: str = "auto",
    out: str | Path | None = None,
    say: Callable[[str], None] = lambda words: None,
) -> dict[str, Any]:
    """Judge a checkpoint; write report.json and report.html and return the former's contents. Of several checkpoints,
    they stand side by side under `checkpoints`.

    parts: which of `PARTS`. episodes: of each behaviour. num_envs: copies that play side by side.
    horizons: steps ahead of open-loop predictions. sticky: probability that an action is repeated, where the agent's
    own environment has none. out: folder; None takes the run folder of a single checkpoint.
    say: told what is going on.

    The same arguments give the same numbers; nothing is written before all is computed. Raises ConfigError for bad
    input.
    """
    began = time.perf_counter()
    for key, value, low in (("episodes", episodes, 1), ("seed", seed, 0), ("num_envs", num_envs, 1)):
        arguments.check_whole(key, value, low)
    arguments.check_list("horizons", horizons, "whole numbers from 1")
    for horizon in horizons:
        arguments.check_whole("horizons", horizon, 1)
    arguments.check_share("sticky", sticky)
    arguments.check_parts(parts, PARTS)
    paths = arguments.checkpoints(checkpoint)
    if out is None and len(paths) > 1:
        raise ConfigError("out=null: to compare checkpoints, a folder must be given")
    folder = Path(out or run_dir_of(paths[0]))
    where = arguments.pick_device(str(device))
    agents = [load_agent(path) for path in paths]  # all of them, before the first one is judged
    arguments.make_folder(folder)
    common = {"seed": seed, "episodes": episodes, "num_envs": min(num_envs, episodes)}
    options = {"horizons": sorted(set(horizons)), "sticky": float(sticky)}
    found = []
    for path, label, (module, cfg) in zip(paths, arguments.labels(paths), agents, strict=True):
        study = Study(
            Path(path), module.to(where), cfg, **common, say=lambda words, label=label: say(f"{label}: {words}")
        )
        sections = {name: fill(PARTS[name], study=study, **options) for name in PARTS if name in parts}
        sections = {name: section for name, section in sections.items() if section is not None}
        found.append(Judged(label, numbers(study, sections), sections))
    made = RunRecord(folder, seed).data
    provenance = {k: made[k] for k in ("git", "packages", "machine")}
    provenance["machine"]["device"] = str(where)
    own = found[0].numbers if len(found) == 1 else {"checkpoints": [x.numbers for x in found]}
    report = own | common | provenance | {"wall_s": round(time.perf_counter() - began, 2)}
    html = page(found, report)
    write_json(folder / "report.json", report)
    write_text(folder / "report.html", html)
    return report


def numbers(study: Study, sections: dict[str, Section]) -> dict[str, Any]:
    """What report.json says of one checkpoint: the headline, then a section a part."""
    report: dict[str, Any] = {"checkpoint": str(study.checkpoint), "env_steps": int(study.module.env_steps)}
    foreseen = sections["prediction"].numbers if "prediction" in sections else None
    for name in ("greedy", "sampled"):
        played = study.play(name)
        found = summary(played, study.cfg.data.success, study.seed)
        steps = played.tally.length.sum()
        report[name] = {k: found[k] for k in ("return_mean", "return_ci", "success", "length")} | {
            k: rounded(getattr(played.tally, k).sum() / steps) for k in ("rew_int_raw", "rew_int")
        }
        if foreseen is not None:
            ahead = foreseen[name]["open_loop"].items()
            report[name]["delta_skill"] = {h: x["model"] | {"samples": x["samples"]} for h, x in ahead}
    sampled = report["sampled"]
    report |= {k: sampled[k] for k in ("return_mean", "return_ci", "success", "length")}
    report["delta_skill"] = {h: x["skill"] for h, x in sampled.get("delta_skill", {}).items()}
    report["open_loop_latent"] = "imagined" if imagines_latents(study.module.model) else "unknown"
    return report | {name: section.numbers for name, section in sections.items()}
