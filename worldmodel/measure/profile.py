"""Profiling command: `python -m worldmodel.profile --help`."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig

from worldmodel.analysis.report.canvas import panels
from worldmodel.analysis.report.section import Table
from worldmodel.errors import check_range
from worldmodel.files import atomic_write, write_json
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.measure.stopwatch import REST, Stopwatch, TimedLoader
from worldmodel.measure.transformer_speed import peak_flops
from worldmodel.training.build import build_agent, build_data, build_module, env_spec
from worldmodel.training.callbacks import Checkpoints, Metrics, ProgressBar, ReplayPriorities
from worldmodel.training.config import bad_input, check
from worldmodel.training.datamodule import SequenceData
from worldmodel.training.module import TrainingModule
from worldmodel.training.run import make_trainer
from worldmodel.training.run_record import RunRecord
from worldmodel.training.start_checks import seed_libraries
from worldmodel.types import Sequences

LEARNING = ("world model forward", "world model backward", "policy forward", "policy backward", "curiosity learning")
TIMED_PARTS = (
    *("environment", "acting", "minibatches", "curiosity scoring", "imagination", "returns", *LEARNING),
    *("optimiser", "callbacks"),
)


class Watch(L.Callback):
    """Callback that times the parts of `updates` updates after `warmup` others, the last of which counts FLOPs.

    Methods of the objects involved are wrapped during training; the code itself has no hooks. Policy and world model
    share one backward pass, which autograd runs from the losses computed last (the policy's) to those computed first
    (the world model's). The time before it reaches a loss of the world model is the policy's. With
    policy.actor.memory_gradient, the gradients that the policy sends through the memory count as the world model's.
    Checkpoints (every 20th update) and the video are not included.
    """

    def __init__(self, data: SequenceData, updates: int, warmup: int):
        self.data = data
        self.updates, self.warmup, self.watch = updates, warmup, Stopwatch()
        self.tokens = 0
        self.wall = 0.0
        self.seconds: dict[str, float] = {}
        self.flops: dict[str, int] = {}

    def setup(self, trainer: L.Trainer, pl_module: TrainingModule, stage: str) -> None:
        data, watch = self.data, self.watch
        watch.cuda = trainer.strategy.root_device.type == "cuda"
        loader = data.train_dataloader
        watch.replace(data, "train_dataloader", lambda: TimedLoader(loader(), watch, "minibatches"))

    def on_train_start(self, trainer: L.Trainer, pl_module: TrainingModule) -> None:
        module, agent, wrap = pl_module, pl_module.agent, self.watch.wrap
        collector = self.data.stream.collector
        wrap(collector.env, "step", "environment")
        for method in ("observe", "shift_window", "record_outcome"):
            wrap(collector.actor, method, "acting")
        wrap(agent, "score", "curiosity scoring")
        wrap(agent.objective, "score", "returns")
        if agent.imagination is not None:
            wrap(agent.imagination, "rollout", "imagination")
        wrap(agent.model, "forward", "world model forward")
        wrap(agent.model, "losses", "world model forward")
        wrap(agent.curiosity, "losses", "curiosity learning")
        wrap(agent.objective, "losses", "policy forward")
        wrap(module, "backward", "policy backward")
        self._split_backward(agent)
        for method in ("configure_gradient_clipping", "optimizer_zero_grad", "lr_scheduler_step", "on_train_batch_end"):
            wrap(module, method, "optimiser")
        for optimizer in trainer.optimizers:
            self._wrap_step(optimizer)
        for callback in trainer.callbacks:
            for name in vars(L.Callback):
                used = getattr(type(callback), name) is not getattr(L.Callback, name)
                if name.startswith("on_train_") and used and callback is not self:
                    wrap(callback, name, "callbacks")

    def _split_backward(self, agent: CuriousAgent) -> None:
        watch, model_losses, other_losses = self.watch, agent.model.losses, agent.curiosity.losses
        forward = agent.model.forward

        def counted(roll: Sequences) -> Any:
            self.tokens += roll.act.shape[0] * (roll.act.shape[1] - 1)
            return forward(roll)

        watch.replace(agent.model, "forward", counted)
        watch.replace(agent.model, "losses", lambda *a: watch.hooked(model_losses(*a), "world model backward"))
        watch.replace(agent.curiosity, "losses", lambda *a: watch.hooked(other_losses(*a), "curiosity learning"))

    def _wrap_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Time the optimiser's step without Lightning's closure, which is the forward and backward pass."""
        watch, step = self.watch, optimizer.step

        def timed(closure: Any = None) -> Any:
            def outside() -> Any:
                with watch.part(REST):
                    return closure()

            with watch.part("optimiser"):
                return step(outside if closure else None)

        watch.replace(optimizer, "step", timed)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: TrainingModule) -> None:
        update, watch = trainer.current_epoch + 1, self.watch
        if update == self.warmup - 1:
            watch.count_flops(True)
        elif update == self.warmup:
            watch.count_flops(False)
            self.flops, self.tokens = dict(watch.flops), 0
            watch.clear()
            self.wall = time.perf_counter()
        elif update == self.warmup + self.updates:
            self.seconds, self.wall = watch.read(), time.perf_counter() - self.wall
            trainer.should_stop = True


def profile(cfg: DictConfig, *, updates: int = 8, warmup: int = 2, out: str | Path | None = None) -> dict[str, Any]:
    """Train for `warmup + updates` updates on one device; write and return profile.json.

    Raises ConfigError for bad input.
    """
    check_range("updates", updates, "[1, inf)", whole=True)
    check_range("warmup", warmup, "[2, inf)", whole=True)
    cfg.trainer.devices = 1
    with tempfile.TemporaryDirectory() as folder:
        cfg.run_dir = folder
        check(cfg)
        cfg.total_steps = (warmup + updates) * cfg.env.num_envs * cfg.data.rollout_length
        if cfg.threads:
            torch.set_num_threads(cfg.threads)
        seed_libraries(cfg.seed)
        with bad_input():
            agent, data = build_agent(cfg, env_spec(cfg)), build_data(cfg)
            module = build_module(cfg, agent)
        run_dir = Path(folder)
        metrics, watch = Metrics(run_dir, data.stream), Watch(data, updates, warmup)
        around = [
            metrics,
            ReplayPriorities(data.stream),
            ProgressBar(metrics, cfg.total_steps),
            Checkpoints(run_dir, metrics),
            watch,
        ]
        try:
            make_trainer(cfg, around, data).fit(module, data)
        finally:
            watch.watch.release()
        made = RunRecord(run_dir, cfg.seed).data
    report = {
        "name": cfg.name,
        "updates": updates,
        "warmup": warmup,
        **to_dict(watch, cfg.env.num_envs, data.stream.rollout_length, agent.device),
        "parameters": parameters(agent),
        **{k: made[k] for k in ("git", "packages", "machine")},
    }
    report["machine"]["device"] = str(agent.device)
    folder = Path(out or Path("runs") / "profile" / cfg.name)
    write_json(folder / "profile.json", report)
    draw(report, folder / "profile.png")
    return report


def to_dict(watch: Watch, num_envs: int, horizon: int, device: torch.device) -> dict[str, Any]:
    """Return seconds, FLOPs and speeds of the watched updates.

    FLOPs are those of products, convolutions and attention (complete, not its causal half). The peak is that of a CPU's
    float32 products with the same number of threads.
    """
    seconds, flops, updates = watch.seconds, watch.flops, watch.updates
    total_flops, learning_flops = sum(flops.values()), sum(flops.get(p, 0) for p in LEARNING)
    learning = sum(seconds.get(p, 0.0) for p in LEARNING)
    acting = seconds["acting"]
    peak = peak_flops() if device.type == "cpu" else None
    rss_unit = 2**20 if sys.platform == "darwin" else 2**10

    def rate(count: int, took: float) -> dict[str, float | None]:
        per_s = updates * count / took
        return {"gflops_per_s": per_s / 1e9, "share_of_peak": per_s / peak if peak else None}

    return {
        "wall_s": watch.wall,
        "parts": {
            p: {
                "seconds": seconds.get(p, 0.0),
                "share": seconds.get(p, 0.0) / watch.wall,
                "gflops_per_update": flops.get(p, 0) / 1e9,
            }
            for p in (*TIMED_PARTS, REST)
        },
        "steps_per_s": updates * num_envs * horizon / watch.wall,
        "tokens_per_s": {
            "learning": watch.tokens / learning,
            "acting": updates * num_envs * (horizon + 1) / acting,
        },
        "flops": {
            "learning": rate(learning_flops, learning),
            "acting": rate(flops.get("acting", 0), acting),
            "all": rate(total_flops, watch.wall),
            "peak_gflops_per_s": peak / 1e9 if peak else None,
        },
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / rss_unit,
        "peak_device_mb": torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else None,
    }


def parameters(agent: CuriousAgent) -> dict[str, dict[str, int]]:
    """Return the numbers of learned and frozen parameters per part."""
    parts = dict(agent.model.named_children()) | {"policy": agent.policy, "curiosity": agent.curiosity}
    counts = {
        name: {
            kind: sum(p.numel() for p in part.parameters() if p.requires_grad == (kind == "learnt"))
            for kind in ("learnt", "frozen")
        }
        for name, part in parts.items()
    }
    counts["start"] = {"learnt": agent.model.start.numel(), "frozen": 0}
    return {name: count for name, count in counts.items() if any(count.values())}


def draw(report: dict[str, Any], path: Path) -> None:
    """Plot one bar per part: milliseconds per update, and its share."""
    names = list(report["parts"])
    shares = [report["parts"][n]["share"] for n in names]
    ms = [report["parts"][n]["seconds"] / report["updates"] * 1e3 for n in names]
    figure, (axis,) = panels(1, height=4.5)
    axis.bar_label(axis.barh(names, ms), [f"{share:.1%}" for share in shares], padding=3, fontsize=8)
    axis.invert_yaxis()
    axis.margins(x=0.1)
    axis.set(xlabel="ms an update", title=f"{report['name']}: {report['steps_per_s']:,.0f} steps/s")
    atomic_write(path, lambda file: figure.savefig(file, format="png", dpi=110))


def tables(report: dict[str, Any]) -> list[Table]:
    """Return the report as tables: the parts of an update, and speed and size."""
    parts = [
        [
            "Lightning and the rest" if name == REST else name,
            f"{part['seconds']:.3f}",
            f"{part['share']:.1%}",
            f"{part['gflops_per_update']:.2f}",
        ]
        for name, part in report["parts"].items()
    ]
    facts = [["steps/s", f"{report['steps_per_s']:,.0f}"]]
    facts += [[f"tokens/s, {name}", f"{value:,.0f}"] for name, value in report["tokens_per_s"].items()]
    for name in ("learning", "acting", "all"):
        rate = report["flops"][name]
        share = "" if rate["share_of_peak"] is None else f", {rate['share_of_peak']:.1%} of peak"
        facts.append([f"GFLOP/s, {name}", f"{rate['gflops_per_s']:.2f}{share}"])
    if report["flops"]["peak_gflops_per_s"]:
        facts.append(["peak GFLOP/s, float32", f"{report['flops']['peak_gflops_per_s']:.0f}"])
    facts.append(["peak memory (RSS), MB", f"{report['peak_rss_mb']:,.0f}"])
    for name, count in report["parameters"].items():
        frozen = f" and {count['frozen']:,} frozen" if count["frozen"] else ""
        facts.append([f"parameters, {name}", f"{count['learnt']:,}{frozen}"])
    title = f"{report['name']}: {report['updates']} updates in {report['wall_s']:.2f} s"
    return [
        Table(title, ["part", "seconds", "share", "GFLOP/update"], parts),
        Table("speed and size", ["figure", "value"], facts),
    ]
