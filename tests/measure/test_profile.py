"""The stopwatch, the split of the backward pass, and the report of a profile; the timings themselves are not tested."""

import json
import re
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from helpers.tiny import EASY, TINY, tiny_agent, tiny_config
from torch import nn
from torch.nn import functional as F

from worldmodel.measure import stopwatch
from worldmodel.measure.profile import TIMED_PARTS, Watch, parameters, profile
from worldmodel.measure.stopwatch import REST, Stopwatch, TimedLoader
from worldmodel.model.memory.linear import Linear
from worldmodel.profile import main
from worldmodel.training.build import build_agent, build_data, build_module, env_spec
from worldmodel.training.module import TrainingModule
from worldmodel.training.run import make_trainer


class Clock:
    """A clock that is set by hand."""

    time = 100.0


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: clock.time)
    return clock


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The profile of a tiny run, and its folder."""
    folder = tmp_path_factory.mktemp("profile") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worldmodel.measure.profile.peak_flops", lambda: 1e11)  # it has tests of its own
        return profile(tiny_config(*EASY), updates=3, warmup=2, out=folder), folder


# --- the stopwatch


def test_parts_are_charged_for_their_own_time_only(now: Clock):
    watch = Stopwatch()
    now.time += 1  # rest
    with watch.part("a"):
        now.time += 2
        with watch.part("b"):
            now.time += 4
            with watch.part("a"):
                now.time += 8
        now.time += 16
        watch.go_on_as("c")
        now.time += 32
    now.time += 64  # rest
    assert watch.read() == {REST: 65, "a": 26, "b": 4, "c": 32}
    watch.clear()
    now.time += 0.5
    assert watch.read() == {REST: 0.5}


def test_an_exception_ends_its_part(now: Clock):
    watch = Stopwatch()
    with pytest.raises(KeyError), watch.part("a"):
        now.time += 1
        raise KeyError
    now.time += 2
    assert watch.read() == {REST: 2, "a": 1}


def test_wrapped_methods_are_left_as_they_were(now: Clock):
    class Worker:
        def work(self, seconds: float) -> float:
            now.time += seconds
            return -seconds

    worker, watch = Worker(), Stopwatch()
    watch.wrap(worker, "work", "outer")
    watch.wrap(worker, "work", "inner")  # a second one goes around the first
    assert worker.work(3) == -3
    assert watch.read() == {REST: 0, "outer": 3, "inner": 0}
    watch.release()
    assert not vars(worker) and worker.work(1) == -1
    assert watch.read()["outer"] == 3


def test_timed_loader(now: Clock):
    class Slow:
        def __len__(self) -> int:
            return 2

        def __iter__(self):
            for i in range(2):
                now.time += 10
                yield i
            now.time += 1

    watch = Stopwatch()
    loader, items = TimedLoader(Slow(), watch, "making"), []
    for item in loader:
        now.time += 100
        items.append(item)
    assert items == [0, 1] and len(loader) == 2
    assert watch.read() == {REST: 200, "making": 21}


def test_flops_by_hand():
    watch = Stopwatch()
    watch.count_flops(True)
    layer, x = Linear(8, 4), torch.randn(300, 8, requires_grad=True)  # enough rows for its own kernel
    with watch.part("forward"):
        y = layer(x)
    with watch.part("backward"):
        y.sum().backward()
    q = torch.randn(2, 3, 16, 8)
    with watch.part("attention"):
        F.scaled_dot_product_attention(q, q, q, torch.zeros(2, 1, 16, 16))
    watch.count_flops(False)
    layer(x)  # not counted
    one = 2 * 300 * 8 * 4
    assert watch.flops == {REST: 0, "forward": one, "backward": 2 * one, "attention": 2 * (2 * 2 * 3 * 16 * 16 * 8)}


# --- the split of the joint backward pass


class Recorder(L.Callback):
    """The part that is charged at the moment when each parameter's gradient is complete."""

    def __init__(self, watch: Watch):
        self.watch = watch.watch
        self.parts: dict[str, str] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: TrainingModule) -> None:
        for name, parameter in pl_module.agent.named_parameters():
            if parameter.requires_grad:
                record = lambda p, name=name: self.parts.update({name: self.watch.stack[-1]})  # noqa: E731
                parameter.register_post_accumulate_grad_hook(record)


@pytest.mark.parametrize("curious", [False, True])
def test_policy_and_world_model_share_a_backward_pass_in_this_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, curious: bool
):
    torch.manual_seed(0)
    cfg = tiny_config(*EASY, "total_steps=32", f"run_dir={tmp_path}")
    agent, data = build_agent(cfg, env_spec(cfg)), build_data(cfg)
    if curious:  # a signal with a network of its own, which reads the memory
        agent.curiosity.net = nn.Linear(16, 1)
        reads = lambda roll, out: {"own": agent.curiosity.net(out.h).squeeze(-1).square()}  # noqa: E731
        monkeypatch.setattr(agent.curiosity, "losses", reads)
    module, watch = build_module(cfg, agent), Watch(data, 1, 2)
    recorder = Recorder(watch)
    make_trainer(cfg, [watch, recorder], data).fit(module, data)
    parts = {"policy": "policy backward", "model": "world model backward", "curiosity": "curiosity learning"}
    during = recorder.parts
    assert during == {name: parts[name.split(".")[0]] for name in during}
    assert {name.split(".")[0] for name in during} == {"policy", "model"} | ({"curiosity"} if curious else set())
    assert not watch.watch.stack
    watch.watch.release()
    assert "forward" not in vars(agent.model) and "losses" not in vars(agent.model) and "backward" not in vars(module)
    assert "train_dataloader" not in vars(data)


# --- the profile


def test_parts_are_the_whole_time(report: tuple[dict[str, Any], Path]):
    parts = report[0]["parts"]
    assert 0.95 <= sum(p["share"] for p in parts.values()) <= 1.01
    assert sum(p["seconds"] for p in parts.values()) == pytest.approx(report[0]["wall_s"], rel=0.05)
    idle = {"curiosity learning", "imagination"}  # surprise has no network of its own, and nothing is imagined
    assert all(parts[name]["seconds"] > 0 for name in (*TIMED_PARTS, REST) if name not in idle)
    assert parts[REST]["share"] < 0.5


def test_speeds_follow_from_the_parts(report: tuple[dict[str, Any], Path]):
    found, _ = report
    assert found["steps_per_s"] == pytest.approx(3 * 4 * 8 / found["wall_s"])
    assert found["tokens_per_s"]["acting"] == pytest.approx(3 * 4 * 9 / found["parts"]["acting"]["seconds"])
    learning = [found["parts"][p] for p in TIMED_PARTS if p.split()[-1] in ("forward", "backward", "learning")]
    seconds = sum(p["seconds"] for p in learning)
    # 3 updates of 2 epochs over 4 sequences of 4 + 8 rows
    assert found["tokens_per_s"]["learning"] == pytest.approx(3 * 2 * 4 * 12 / seconds)
    rate = found["flops"]["learning"]
    assert rate["gflops_per_s"] == pytest.approx(3 * sum(p["gflops_per_update"] for p in learning) / seconds)
    assert rate["share_of_peak"] == pytest.approx(rate["gflops_per_s"] / 100)
    # the backward pass has two products per matrix, or one where its input needs no gradient
    flops = {name: part["gflops_per_update"] for name, part in found["parts"].items()}
    assert 1 < flops["world model backward"] / flops["world model forward"] < 2.5
    assert 1 <= flops["policy backward"] / flops["policy forward"] <= 2
    assert flops["environment"] == 0 < flops["acting"]


def test_files_of_a_profile(report: tuple[dict[str, Any], Path]):
    found, folder = report
    assert {p.name for p in folder.iterdir()} == {"profile.json", "profile.png"}
    assert json.loads((folder / "profile.json").read_text()) == found
    assert found["peak_rss_mb"] > 100 and found["machine"]["threads"] == 1


def test_parameters_are_counted_once():
    agent, stream, _ = tiny_agent()
    stream.close()
    counts = parameters(agent)
    learnt = sum(p.numel() for p in agent.parameters() if p.requires_grad)
    assert sum(c["learnt"] for c in counts.values()) == learnt
    assert counts["target"]["learnt"] == 0 < counts["target"]["frozen"]


# --- the command


def test_command(cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("worldmodel.measure.profile.peak_flops", lambda: 1e11)
    ended = cli(*TINY, "updates=1", tiny=[], main=main)
    assert ended.code == 0 and "world model backward" in ended.out and "steps/s" in ended.out
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {"runs/profile/doorkey/profile.json", "runs/profile/doorkey/profile.png"}


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("updates=0", "updates=0: allowed are whole numbers from 1"),
        ("warmup=1", "warmup=1: allowed are whole numbers from 2"),
        ("memory=lstm", "memory=lstm: no such option"),
        ("update=3", "update"),
        ("data.minibatches=3", "data.minibatches=3: "),
    ],
)
def test_bad_input(cli, argument: str, words: str):
    ended = cli(*TINY, argument, tiny=[], main=main)
    assert ended.code == 2 and ended.err.count("\n") == 1
    assert re.search(words, ended.err), ended.err


def test_help(cli):
    ended = cli("--help", tiny=[], main=main)
    assert ended.code == 0 and "worldmodel.profile experiment=" in ended.out and "warmup" in ended.out
