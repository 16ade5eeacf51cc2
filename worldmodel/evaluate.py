"""The evaluation CLI: `python -m worldmodel.evaluate --help`."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from worldmodel.agent import load_agent
from worldmodel.build import build_env
from worldmodel.checkpoint import run_dir_of
from worldmodel.command import bad_input_exits, run_command
from worldmodel.config import CONFIG_DIR, ConfigError, bad_input
from worldmodel.files import write_json
from worldmodel.module import CuriousAgent
from worldmodel.open_loop import Errors, Window, imagines_latents, open_loop
from worldmodel.rollouts import Tally, freeze, play
from worldmodel.run import RunRecord

SEED_OFFSET = 1_000_000  # keeps evaluation's environments apart from those of any training seed
RESAMPLES = 2000  # of the bootstrap
STARTS = 512  # about as many starts of open-loop predictions
KEPT = 8  # rollouts that they come from: so many, up to twice as many


def evaluate(
    checkpoint: str | Path,
    *,
    episodes: int = 100,
    seed: int = 0,
    num_envs: int = 25,
    horizons: Sequence[int] = (1, 2, 4, 8, 16),
    device: str = "auto",
    out: str | Path | None = None,
) -> dict[str, Any]:
    """Play `episodes` episodes with the greedy and as many with the sampled policy; write and return report.json.

    The same arguments give the same numbers. Raises ConfigError for bad input.
    """
    began = time.perf_counter()
    for key, value, low in (("episodes", episodes, 1), ("seed", seed, 0), ("num_envs", num_envs, 1)):
        _check_whole(key, value, low)
    if not isinstance(horizons, list | tuple):
        raise ConfigError(f"horizons={horizons}: allowed is a list of whole numbers from 1")
    for horizon in horizons:
        _check_whole("horizons", horizon, 1)
    module, cfg = load_agent(str(checkpoint))
    folder = Path(str(out or run_dir_of(str(checkpoint))))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"out={folder}: can't be made ({error.strerror})") from None
    copies = min(num_envs, episodes)
    freeze(module.to(pick_device(str(device))), copies)
    report: dict[str, Any] = {
        "checkpoint": str(checkpoint),
        "env_steps": int(module.env_steps),
        "seed": seed,
        "episodes": episodes,
        "num_envs": copies,
    }
    for policy in ("greedy", "sampled"):
        report[policy] = section(module, cfg, policy == "greedy", episodes, seed, copies, sorted(set(horizons)))
    sampled = report["sampled"]
    report |= {k: sampled[k] for k in ("return_mean", "return_ci", "success", "length")}
    report["delta_skill"] = {h: x["skill"] for h, x in sampled["delta_skill"].items()}
    report["open_loop_latent"] = "imagined" if imagines_latents(module.model) else "unknown"
    made = RunRecord(folder, seed).data
    report |= {k: made[k] for k in ("git", "packages", "machine")}
    report["machine"]["device"] = str(module.device)
    report["wall_s"] = round(time.perf_counter() - began, 2)
    write_json(folder / "report.json", report)
    return report


def section(
    module: CuriousAgent, cfg: DictConfig, greedy: bool, episodes: int, seed: int, num_envs: int, horizons: list[int]
) -> dict[str, Any]:
    """What one policy's episodes came to: the part of the report under `greedy` or `sampled`."""
    torch.manual_seed(seed)
    with bad_input():
        env = build_env(cfg, seed=SEED_OFFSET + seed, num_envs=num_envs)
    tally = Tally(episodes)
    name = "greedy" if greedy else "sampled"
    kept: list[tuple[Window, torch.Tensor, torch.Tensor]] = []
    every = 1  # keep each second rollout once there are too many, each fourth then, …
    try:
        with Console(stderr=True).status(f"{name} policy") as status:
            playing = play(
                module,
                env,
                tally,
                context=cfg.data.context,
                horizon=cfg.data.horizon,
                greedy=greedy,
                progress=lambda finished: status.update(
                    f"{name} policy: {min(finished, episodes)}/{episodes} episodes"
                ),
            )
            for i, (roll, view) in enumerate(playing):
                if i % every == 0:
                    kept.append((Window.of(module.model, roll, view.y), *tally.number(roll)))
                if len(kept) > 2 * KEPT:
                    kept, every = kept[::2], 2 * every
            status.update(f"{name} policy: open-loop predictions")
            errors = predictions(module, kept, horizons)
    finally:
        env.close()
    ones, steps = np.ones(episodes), tally.length.sum()
    threshold = cfg.data.success
    return {
        "return_mean": round(float(tally.ret.mean()), 6),
        "return_ci": interval(tally.ret, ones, seed),
        "success": None if threshold is None else float((tally.ret > threshold).mean()),
        "length": round(float(tally.length.mean()), 6),
        "rew_int_raw": round(float(tally.rew_int_raw.sum() / steps), 6),
        "rew_int": round(float(tally.rew_int.sum() / steps), 6),
        "delta_skill": {str(h): skill(e, seed) for h, e in errors.items()},
    }


def predictions(
    module: CuriousAgent, kept: list[tuple[Window, torch.Tensor, torch.Tensor]], horizons: list[int]
) -> dict[int, Errors]:
    """Open-loop errors by horizon from about `STARTS` starts, evenly over the rollouts kept."""
    new, copies = kept[0][0].new, len(kept[0][1])
    count = min(new, -(-STARTS // (copies * len(kept))))
    starts = np.linspace(0, new, count, endpoint=False).astype(int).tolist()
    parts = [open_loop(module.model, window, starts, horizons, *numbers) for window, *numbers in kept]
    joined = {h: [part[h] for part in parts] for h in horizons}
    return {
        h: Errors(*(np.concatenate([getattr(e, name) for e in es]) for name in ("model", "still", "episode")))
        for h, es in joined.items()
    }


def skill(errors: Errors, seed: int) -> dict[str, Any]:
    """1 - error / error of no change, with its interval over episodes; null without a sample."""
    count = len(errors.episode)
    if not count or not errors.still.sum():
        return {"skill": None, "ci": None, "samples": count}
    which = np.unique(errors.episode, return_inverse=True)[1]
    model, still = (np.bincount(which, x.astype(np.float64)) for x in (errors.model, errors.still))
    low, high = interval(model, still, seed)
    return {"skill": round(1 - float(model.sum() / still.sum()), 6), "ci": [round(1 - high, 6), round(1 - low, 6)],
            "samples": count}  # fmt: skip


def interval(part: np.ndarray, whole: np.ndarray, seed: int) -> list[float]:
    """95 % percentile bootstrap (Efron 1979) of sum(part) / sum(whole) over episodes: both (episodes,)."""
    picks = np.random.default_rng(seed).integers(len(part), size=(RESAMPLES, len(part)))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = part[picks].sum(1) / whole[picks].sum(1)
    return [round(float(x), 6) for x in np.percentile(ratios[np.isfinite(ratios)], (2.5, 97.5))]


def pick_device(name: str) -> torch.device:
    """The torch device of a name; `auto` is cuda where there is one. Raises ConfigError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={name}: not available here ({str(error).splitlines()[0]})") from None


def tables(report: dict[str, Any]) -> list[Table]:
    """The report for the eye."""
    title = f"{report['episodes']} episodes, agent of {report['env_steps']:,} steps"
    policies = Table("", "greedy", "sampled", title=title, title_justify="left")
    for key in ("return_mean", "return_ci", "success", "length", "rew_int_raw", "rew_int"):
        policies.add_row(key, *(_short(report[p][key]) for p in ("greedy", "sampled")))
    title = f"delta skill, open loop (latent of imagined steps: {report['open_loop_latent']})"
    skills = Table("steps ahead", "greedy", "sampled", "95 % of sampled", "samples", title=title, title_justify="left")
    for h, row in report["sampled"]["delta_skill"].items():
        greedy = report["greedy"]["delta_skill"][h]["skill"]
        skills.add_row(h, *(_short(x) for x in (greedy, row["skill"], row["ci"])), str(row["samples"]))
    return [policies, skills]


def _short(value: float | list[float] | None) -> str:
    if value is None:
        return "-"
    return " … ".join(f"{x:.3f}" for x in value) if isinstance(value, list) else f"{value:.3f}"


def _check_whole(key: str, value: Any, low: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ConfigError(f"{key}={value}: allowed are whole numbers from {low}")


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="evaluate")
@bad_input_exits()
def _main(cfg: DictConfig) -> None:
    if OmegaConf.is_missing(cfg, "checkpoint"):
        raise ConfigError("checkpoint=???: a path must be given, e.g. runs/…/checkpoints/last.ckpt")
    report = evaluate(**OmegaConf.to_container(cfg))
    console = Console()
    for table in tables(report):
        console.print(table)
    console.print(
        f"{Path(str(cfg.out or run_dir_of(cfg.checkpoint))) / 'report.json'}", soft_wrap=True, highlight=False
    )


def main() -> None:
    """Console entry point. Exit codes: 0 done, 2 bad input, 1 anything else."""
    warnings.filterwarnings("ignore", module="lightning")
    run_command(_main)


if __name__ == "__main__":
    main()
