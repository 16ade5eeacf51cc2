"""Evaluation of checkpoints: report.json and report.html, from sections in a fixed order."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from worldmodel.analysis.report import arguments
from worldmodel.analysis.report.context import EvaluationContext
from worldmodel.analysis.report.open_loop import imagines_latents
from worldmodel.analysis.report.result import CheckpointResult, checkpoint_page
from worldmodel.analysis.report.section import Section
from worldmodel.analysis.report.sections.compression import compression
from worldmodel.analysis.report.sections.curiosity import curiosity
from worldmodel.analysis.report.sections.imagination import imagination
from worldmodel.analysis.report.sections.known_answer import known_answer
from worldmodel.analysis.report.sections.memory import memory
from worldmodel.analysis.report.sections.prediction import prediction
from worldmodel.analysis.report.sections.returns import returns
from worldmodel.analysis.report.sections.video import video
from worldmodel.analysis.report.skill import rounded
from worldmodel.analysis.report.summary import summary
from worldmodel.errors import ConfigError, check_range
from worldmodel.files import write_json, write_text
from worldmodel.training.checkpoint import run_dir_of
from worldmodel.training.config import fill
from worldmodel.training.loading import check_environment, load_agent
from worldmodel.training.run_record import RunRecord

REPORT_SECTIONS: dict[str, Callable[..., Section | None]] = {
    "returns": returns,
    "prediction": prediction,
    "curiosity": curiosity,
    "memory": memory,
    "known_answer": known_answer,
    "compression": compression,
    "imagination": imagination,
    "video": video,
}
"""Sections by their names in `parts`, in the order of the page.

Each takes the context and the options that its signature names, and returns None where it does not apply to the
environment.
"""

DEFAULT_SECTIONS = tuple(part for part in REPORT_SECTIONS if part != "compression")
"""All sections except compression, which takes minutes where the model has no observation head."""


def evaluate(
    checkpoint: str | Path | Sequence[str | Path],
    *,
    parts: Sequence[str] = DEFAULT_SECTIONS,
    episodes: int = 100,
    seed: int = 0,
    num_envs: int = 25,
    horizons: Sequence[int] = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32),
    sticky: float = 0.25,
    max_episode_steps: int | None = None,
    device: str = "auto",
    out: str | Path | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Evaluate checkpoints and write report.json and report.html.

    The same arguments give the same numbers. Nothing is written before everything is computed.

    Args:
        checkpoint: one path, or several to compare.
        parts: names from `REPORT_SECTIONS`.
        episodes: number of episodes of each behaviour.
        seed: of the environments and of sampling.
        num_envs: environments in parallel.
        horizons: steps ahead of open-loop predictions.
        sticky: probability that an action is repeated, where the agent's own environment has no sticky actions.
        max_episode_steps: steps after which an episode is truncated. None: 10,000, or the environment's own time limit
            if that is larger.
        device: name of a torch device, or `auto`.
        out: folder of the report. None: the run folder of a single checkpoint.
        progress: called with a message at each stage.

    Returns:
        The content of report.json. The results of several checkpoints are a list under `checkpoints`.

    Raises:
        ConfigError: for bad input.
    """
    began = time.perf_counter()
    for key, value in (("episodes", episodes), ("num_envs", num_envs)):
        check_range(key, value, "[1, inf)", whole=True)
    check_range("seed", seed, "[0, 9223372036854775808]", whole=True)  # to 2**63
    arguments.check_list("horizons", horizons, "whole numbers from 1")
    for horizon in horizons:
        check_range("horizons", horizon, "[1, inf)", whole=True)
    check_range("sticky", sticky, "[0, 1)")
    check_range("max_episode_steps", max_episode_steps, "[1, inf)", whole=True, null=True)
    arguments.check_parts(parts, REPORT_SECTIONS)
    paths = arguments.checkpoints(checkpoint)
    if out is None and len(paths) > 1:
        raise ConfigError("out=null: to compare checkpoints, a folder must be given")
    folder = Path(out or run_dir_of(paths[0]))
    where = arguments.pick_device(str(device))
    agents = [load_agent(path) for path in paths]  # a bad checkpoint fails before the first evaluation
    for path, (agent, cfg) in zip(paths, agents, strict=True):
        check_environment(agent, cfg, path)
    arguments.make_folder(folder)
    common = {"seed": seed, "episodes": episodes, "num_envs": min(num_envs, episodes)}
    options = {"horizons": sorted(set(horizons)), "sticky": float(sticky)}
    found = []
    for path, label, (agent, cfg) in zip(paths, arguments.labels(paths), agents, strict=True):
        context = EvaluationContext(
            Path(path),
            agent.to(where),
            cfg,
            **common,
            max_episode_steps=max_episode_steps,
            progress=lambda message, label=label: progress(f"{label}: {message}"),
        )
        chosen = {name: make for name, make in REPORT_SECTIONS.items() if name in parts}
        made = {name: fill(make, context=context, **options) for name, make in chosen.items()}
        sections = {name: section for name, section in made.items() if section is not None}
        found.append(CheckpointResult(label, checkpoint_numbers(context, sections), sections))
    record = RunRecord(folder, seed).data
    provenance = {k: record[k] for k in ("git", "packages", "machine")}
    provenance["machine"]["device"] = str(where)
    own = found[0].numbers if len(found) == 1 else {"checkpoints": [x.numbers for x in found]}
    report = own | common | provenance | {"wall_s": round(time.perf_counter() - began, 2)}
    html = checkpoint_page(found, report)
    write_json(folder / "report.json", report)
    write_text(folder / "report.html", html)
    return report


def checkpoint_numbers(context: EvaluationContext, sections: dict[str, Section]) -> dict[str, Any]:
    """Return a checkpoint's entry in report.json: the headline, then the numbers of each section."""
    report: dict[str, Any] = {"checkpoint": str(context.checkpoint), "env_steps": int(context.agent.env_steps)}
    predicted = sections["prediction"].numbers if "prediction" in sections else None
    for name in ("greedy", "sampled"):
        episode_set = context.episode_set(name)
        found = summary(episode_set, context.cfg.data.success, context.seed)
        steps = episode_set.stats.length.sum()
        report[name] = {k: found[k] for k in ("return_mean", "return_ci", "success", "length")} | {
            k: rounded(getattr(episode_set.stats, k).sum() / steps) for k in ("rew_int_raw", "rew_int")
        }
        if predicted is not None:
            ahead = predicted[name]["open_loop"].items()
            report[name]["delta_skill"] = {h: x["model"] | {"samples": x["samples"]} for h, x in ahead}
    sampled = report["sampled"]
    report |= {k: sampled[k] for k in ("return_mean", "return_ci", "success", "length")}
    report["delta_skill"] = {h: x["skill"] for h, x in sampled.get("delta_skill", {}).items()}
    report["open_loop_latent"] = "imagined" if imagines_latents(context.agent.model) else "unknown"
    return report | {name: section.numbers for name, section in sections.items()}
