"""The profile's arithmetic, and what it leaves; timings themselves are no tests."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.tiny import EASY, TINY, tiny_agent, tiny_config
from torch import nn
from torch.nn import functional as F

from worldmodel.measure import stopwatch
from worldmodel.measure.profile import PARTS, Watch, parameters, profile
from worldmodel.profile import main
from worldmodel.measure.stopwatch import REST, Stopwatch, TimedLoader
from worldmodel.model.memory.linear import Linear
from worldmodel.types import Minibatch


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock to set by hand."""
    clock = SimpleNamespace(time=100.0)
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: clock.time)
    return clock


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A tiny run's profile and the folder it is in."""
    folder = tmp_path_factory.mktemp("profile") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worldmodel.measure.profile.peak_flops", lambda: 1e11)  # has its own tests
        return profile(tiny_config(*EASY), updates=3, warmup=2, out=folder), folder


# --- the stopwatch


def test_parts_are_charged_for_their_own_time_only(now: SimpleNamespace):
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


def test_an_exception_ends_its_part(now: SimpleNamespace):
    watch = Stopwatch()
    with pytest.raises(KeyError), watch.part("a"):
        now.time += 1
        raise KeyError
    now.time += 2
    assert watch.read() == {REST: 2, "a": 1}


def test_wrapped_methods_are_left_as_they_were(now: SimpleNamespace):
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


def test_timed_loader(now: SimpleNamespace):
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


@pytest.mark.parametrize("curious", [False, True])
def test_policy_and_world_model_share_a_backward_pass_in_this_order(monkeypatch: pytest.MonkeyPatch, curious: bool):
    torch.manual_seed(0)
    agent, data, _ = tiny_agent(*EASY)
    if curious:  # a signal with a network of its own, which reads the memory
        agent.curiosity.net = nn.Linear(16, 1)
        reads = lambda roll, out: {"own": agent.curiosity.net(out.h).squeeze(-1).square()}  # noqa: E731
        monkeypatch.setattr(agent.curiosity, "losses", reads)
    roll = agent.score(data.collector.collect())
    data.env.close()
    watch = Watch(1, 2)
    callbacks = SimpleNamespace(lightning_module=agent, datamodule=data, optimizers=[], callbacks=[])
    watch.on_train_start(callbacks, agent)
    during = {}
    for name, parameter in agent.named_parameters():
        if parameter.requires_grad:
            record = lambda p, name=name: during.update({name: watch.watch.stack[-1]})  # noqa: E731
            parameter.register_post_accumulate_grad_hook(record)
    agent.backward(joint_loss(agent, Minibatch(roll, roll)))
    parts = {"policy": "policy backward", "model": "world model backward", "curiosity": "curiosity learning"}
    assert during == {name: parts[name.split(".")[0]] for name in during}
    assert {name.split(".")[0] for name in during} == {"policy", "model"} | ({"curiosity"} if curious else set())
    assert not watch.watch.stack
    watch.watch.release()
    assert "forward" not in vars(agent.model) and "losses" not in vars(agent.model) and "backward" not in vars(agent)


# --- the profile


def test_parts_are_the_whole_time(report: tuple[dict[str, Any], Path]):
    parts = report[0]["parts"]
    assert 0.95 <= sum(p["share"] for p in parts.values()) <= 1.01
    assert sum(p["seconds"] for p in parts.values()) == pytest.approx(report[0]["wall_s"], rel=0.05)
    idle = {"curiosity learning", "dreaming"}  # surprise has no network of its own, and nothing is imagined
    assert all(parts[name]["seconds"] > 0 for name in (*PARTS, REST) if name not in idle)
    assert parts[REST]["share"] < 0.5


def test_speeds_follow_from_the_parts(report: tuple[dict[str, Any], Path]):
    said, _ = report
    assert said["steps_per_s"] == pytest.approx(3 * 4 * 8 / said["wall_s"])
    assert said["tokens_per_s"]["acting"] == pytest.approx(3 * 4 * 9 / said["parts"]["acting"]["seconds"])
    learning = [said["parts"][p] for p in PARTS if p.split()[-1] in ("forward", "backward", "learning")]
    seconds = sum(p["seconds"] for p in learning)
    # 3 updates of 2 epochs over 4 sequences of 4 + 8 rows
    assert said["tokens_per_s"]["learning"] == pytest.approx(3 * 2 * 4 * 12 / seconds)
    rate = said["flops"]["learning"]
    assert rate["gflops_per_s"] == pytest.approx(3 * sum(p["gflops_per_update"] for p in learning) / seconds)
    assert rate["share_of_peak"] == pytest.approx(rate["gflops_per_s"] / 100)
    # every matrix is met twice on the way back, but for those whose input needs no gradient
    flops = {name: part["gflops_per_update"] for name, part in said["parts"].items()}
    assert 1 < flops["world model backward"] / flops["world model forward"] < 2.5
    assert 1 <= flops["policy backward"] / flops["policy forward"] <= 2
    assert flops["environment"] == 0 < flops["acting"]


def test_what_it_leaves(report: tuple[dict[str, Any], Path]):
    said, folder = report
    assert {p.name for p in folder.iterdir()} == {"profile.json", "profile.png"}
    assert json.loads((folder / "profile.json").read_text()) == said
    assert said["peak_rss_mb"] > 100 and said["machine"]["threads"] == 1


def test_parameters_are_counted_once():
    agent, data, _ = tiny_agent()
    data.env.close()
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
        ("data.batch=3", "data.batch=3: "),
    ],
)
def test_bad_input(cli, argument: str, words: str):
    ended = cli(*TINY, argument, tiny=[], main=main)
    assert ended.code == 2 and ended.err.count("\n") == 1
    assert re.search(words, ended.err), ended.err


def test_help(cli):
    ended = cli("--help", tiny=[], main=main)
    assert ended.code == 0 and "worldmodel.profile experiment=" in ended.out and "warmup" in ended.out
