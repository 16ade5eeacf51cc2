"""Evaluation of checkpoints: the report, whole episodes without bias, and the command."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from helpers.experience import lived
from helpers.tiny import EASY, TINY, tiny_agent, tiny_config
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from worldmodel.analysis.report.report import REPORT_SECTIONS, evaluate
from worldmodel.analysis.report.sections import compression
from worldmodel.analysis.report.sections.returns import logged
from worldmodel.analysis.report.skill import skill
from worldmodel.analysis.statistics import ratio_interval
from worldmodel.envs import Step
from worldmodel.evaluate import main
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.learner.run_episodes import EpisodeStats, freeze, run_episodes
from worldmodel.training.build import build_env
from worldmodel.training.checkpoint import FORMAT

SMALL = {"episodes": 6, "num_envs": 4, "horizons": [1, 2, 16]}


def save_agent(agent: CuriousAgent, cfg: DictConfig, path: Path) -> None:
    """Write what evaluation reads of a checkpoint."""
    config = OmegaConf.to_container(cfg)
    content = {"state_dict": agent.state_dict(), "config": config, "env_spec": agent.env_spec.to_dict()}
    torch.save(content | {"format": FORMAT}, path)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("agent") / "agent.ckpt"
    agent, _ = lived("data.success=0.0")
    save_agent(agent, tiny_config(*EASY, "data.success=0.0"), path)
    return path


# --- the report


@pytest.fixture(scope="module")
def small_compression() -> Iterator[None]:
    """A compression section with few rollouts and few steps of the head's fit."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("FIT_STEPS", 50), ("TO_FIT", 2), ("ROLLOUTS", 2)):
            patch.setattr(compression, name, value)
        yield


@pytest.fixture(scope="module")
def evaluated(checkpoint: Path, small_compression: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report with all sections."""
    folder = tmp_path_factory.mktemp("report")
    report = evaluate(checkpoint, parts=list(REPORT_SECTIONS), out=folder, **SMALL)
    assert report == json.loads((folder / "report.json").read_text())
    return folder


def test_report_json(evaluated: Path) -> None:
    assert sorted(p.name for p in evaluated.iterdir()) == ["report.html", "report.json"]  # no part of a file is left
    report = json.loads((evaluated / "report.json").read_text())
    sampled = report["sampled"]
    for key in ("return_mean", "return_ci", "success", "length"):
        assert report[key] == sampled[key]
    assert report["env_steps"] == 56 and report["episodes"] == 6 and report["seed"] == 0
    assert report["machine"]["device"] == "cpu" and report["wall_s"] > 0
    assert 1 <= report["length"] <= 6 and 0 <= report["success"] <= 1
    assert sampled["return_ci"][0] <= sampled["return_mean"] <= sampled["return_ci"][1]
    assert sampled["delta_skill"]["1"]["samples"] > sampled["delta_skill"]["2"]["samples"] > 0
    assert report["delta_skill"]["1"] == sampled["delta_skill"]["1"]["skill"]
    # no window of 8 steps holds 16
    assert sampled["delta_skill"]["16"] == {"skill": None, "ci": None, "samples": 0}
    assert set(REPORT_SECTIONS) - report.keys() == {"known_answer"}  # this environment has no known answer
    assert report["video"]["steps"] > 0 and report["imagination"]["cells_right"]["1"]["imagined"] > 0
    assert report["compression"]["head"] == "fitted on the frozen memory" and report["compression"]["bit_exact"]


def test_report_html(evaluated: Path) -> None:
    page = (evaluated / "report.html").read_text()
    pictures = page.count('<img src="data:image/png;base64,')
    films = page.count('<video controls muted src="data:video/mp4;base64,')
    assert pictures == page.count("<img") >= 9 and films == 2, "imagination's and the agent's"
    assert page.count("<figcaption>") == pictures + films
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page) and "<script" not in page  # no external resource
    for part in ("Returns", "Prediction", "Curiosity", "Memory", "Compression", "Imagination", "Video"):
        assert f"<h2>{part}</h2>" in page


def test_equal_numbers_of_equal_arguments(checkpoint: Path, evaluated: Path, tmp_path: Path) -> None:
    first = json.loads((evaluated / "report.json").read_text())
    again = evaluate(checkpoint, parts=[x for x in REPORT_SECTIONS if x != "video"], out=tmp_path, **SMALL)
    assert {k: v for k, v in first.items() if k not in ("wall_s", "video")} == {
        k: v for k, v in again.items() if k != "wall_s"
    }
    other = evaluate(checkpoint, parts=["returns"], seed=1, out=tmp_path, **SMALL)
    assert other["sampled"] != {k: v for k, v in first["sampled"].items() if k != "delta_skill"}


@pytest.mark.parametrize(
    ("text", "found"),
    [("32,0.1\n64,0.25\n96,0.5\n", 0.25), ("32,0.1\n", None), ("64,\n", None), ("", None)],
)
def test_logged_return_at_the_checkpoint_s_step(tmp_path: Path, text: str, found: float | None) -> None:
    (tmp_path / "metrics.csv").write_text(f"env_steps,return_ext\n{text}")
    context = SimpleNamespace(checkpoint=tmp_path / "checkpoints" / "last.ckpt", agent=SimpleNamespace(env_steps=64))
    assert logged(context) == found


@pytest.mark.parametrize("experiment", ["cartpole", "mujoco", "dict"])
def test_every_kind_of_observation_and_action(tmp_path: Path, experiment: str):
    torch.manual_seed(1)
    lacking = ("encoder.dim", "target.dim")  # sizes that not each experiment's parts have
    agent, stream, cfg = tiny_agent(
        f"experiment={experiment}", "+env.max_episode_steps=6", tiny=[x for x in TINY if not x.startswith(lacking)]
    )
    agent.score(stream.collector.collect())
    stream.close()
    save_agent(agent, cfg, tmp_path / "agent.ckpt")
    parts = [part for part in REPORT_SECTIONS if part not in ("video", "compression")]
    report = evaluate(tmp_path / "agent.ckpt", episodes=4, num_envs=2, parts=parts, horizons=[1, 2])
    assert report["prediction"]["random"]["open_loop"]["2"]["linear"]["skill"] is not None
    assert (report["prediction"]["sampled"]["actions"] is None) == (experiment == "mujoco")
    assert report["memory"]["skill_by_context"]["0"]["samples"] > 0


def test_success_may_be_undefined(checkpoint: Path, tmp_path: Path):
    saved = torch.load(checkpoint, weights_only=True)
    saved["config"]["data"]["success"] = None
    torch.save(saved, tmp_path / "agent.ckpt")
    report = evaluate(tmp_path / "agent.ckpt", episodes=1, parts=["returns"])
    assert report["success"] is None and report["num_envs"] == 1
    assert (tmp_path / "report.json").exists()


def test_curiosity_is_scored_as_in_training_by_frozen_statistics():
    agent, _ = lived(
        "curiosity=surprise_alone"
    )  # a signal with a memory of its episodes would pay less the second time
    before = {
        k: v.clone()
        for k, v in agent.state_dict().items()
        if not k.endswith(("count", "reward_normalizer.sum", "return_scale.sum"))
    }
    freeze(agent, 3)
    env = build_env(tiny_config(*EASY, "curiosity=surprise_alone"), seed=5, num_envs=3)
    stats, raws, rews, steps = EpisodeStats(3), 0.0, 0.0, 0
    for roll, out in run_episodes(agent, env, stats, context=4, rollout_length=8, greedy=False):
        counted = stats.number(roll)[1]
        raw = agent.curiosity.reward(roll, out)[counted]
        scale = agent.reward_normalizer
        torch.testing.assert_close(
            roll.rew_int[counted], raw / before["reward_normalizer.moments.var"].sqrt() * scale.scale
        )
        raws, rews, steps = raws + raw.sum(), rews + roll.rew_int[counted].sum(), steps + int(counted.sum())
    assert steps == stats.length.sum() and raws != 0
    assert stats.rew_int_raw.sum() == pytest.approx(float(raws), rel=1e-4)
    assert stats.rew_int.sum() == pytest.approx(float(rews), rel=1e-4)
    for name, value in before.items():
        assert agent.state_dict()[name].equal(value), name


# --- episodes


class Uneven:
    """Copy i's episodes are 3 (i + 1) steps long; only those of copy 0 pay."""

    obs_space, act_space = gym.spaces.Box(-1, 1, (4,)), gym.spaces.Discrete(2)
    num_envs, null_action, resumable, info, time_limit = 3, None, False, {}, None

    def reset(self) -> Tensor:
        self.age = torch.zeros(3)
        return self.obs()

    def obs(self) -> Tensor:
        return (self.age[:, None] / 10).expand(3, 4).clone()

    def step(self, act: Tensor) -> Step:
        limit = 3 * torch.arange(1, 4)
        ignored = self.age == limit
        self.age = torch.where(ignored, 0, self.age + 1)
        end = self.age == limit
        rew = end.float() * torch.tensor([1.0, 0.0, 0.0])
        return Step(self.obs(), rew, end, torch.zeros_like(end), ignored)

    def close(self) -> None: ...

    def limit_episodes(self, steps: int) -> None: ...


def test_long_episodes_count_as_much_as_short_ones():
    agent, stream, _ = tiny_agent("env=cartpole", "encoder=mlp", "encoder.hidden=[16]")
    stream.close()
    freeze(agent, 3)
    stats = EpisodeStats(7)  # 3 of copy 0, 2 of the others
    list(run_episodes(agent, Uneven(), stats, context=4, rollout_length=8, greedy=False))
    np.testing.assert_array_equal(stats.length, [3, 6, 9, 3, 6, 9, 3])
    np.testing.assert_array_equal(stats.ret, [1, 0, 0, 1, 0, 0, 1])
    np.testing.assert_array_equal(stats.finished, 1)


# --- statistics


def test_interval():
    rng = np.random.default_rng(0)
    x = rng.normal(3.0, 2.0, 400)
    low, high = ratio_interval(x, np.ones(400), seed=0)
    assert low < x.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * 2.0 / 20, rel=0.15)  # as the normal approximation has it
    assert ratio_interval(np.full(5, 0.25), np.ones(5), seed=0) == (0.25, 0.25)
    assert ratio_interval(np.array([1.0, 9.0]), np.array([1.0, 9.0]), seed=0) == (1.0, 1.0)  # a ratio of sums
    assert ratio_interval(np.ones(3), np.zeros(3), seed=0) is None


def test_skill_resamples_episodes_not_samples():
    rng = np.random.default_rng(0)
    model, still = rng.random(300), np.ones(300)
    narrow = skill(model, still, np.arange(300), 0)["ci"]
    model = np.repeat(rng.random(3), 100)  # 3 episodes of 100 equal errors each
    wide = skill(model, still, np.repeat([4, 2, 7], 100), 0)["ci"]
    assert wide[0] == pytest.approx(1 - model.max(), abs=1e-5) and wide[1] == pytest.approx(1 - model.min(), abs=1e-5)
    assert narrow[1] - narrow[0] < 0.1
    assert skill(np.zeros(2), np.zeros(2), np.arange(2), 0)["skill"] is None  # nothing ever changes


# --- the command


def test_command(cli, checkpoint: Path, tmp_path: Path):
    arguments = ("episodes=2", "num_envs=2", "horizons=[1]", "parts=[prediction]")
    done = cli(f"checkpoint={checkpoint}", *arguments, tiny=[], main=main)
    assert done.code == 0 and "return_mean" in done.out and "steps ahead" in done.out
    assert (checkpoint.parent / "report.json").exists() and (checkpoint.parent / "report.html").exists()
    assert not list(tmp_path.iterdir())  # nothing else is left behind


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "checkpoint=.*must be given"),
        (["checkpoint=nowhere.ckpt"], "checkpoint=nowhere.ckpt: no such file"),
        (["episodes=0"], "episodes=0: allowed are whole numbers from 1"),
        (["episodes=many"], "episodes=many: allowed is int"),
        (["seed=-1"], "seed=-1: allowed are whole numbers from 0"),
        (["horizons=[1,0]"], "horizons=0: allowed are whole numbers from 1"),
        (["horizons=4"], "horizons=4: allowed is a list"),
        (["horizons=[]"], r"horizons=\[\]: allowed is a list"),
        (["parts=[]"], r"parts=\[\]: allowed is a list of returns, prediction"),
        (["parts=[return]"], "parts=return: no such part, allowed are returns, prediction"),
        (["sticky=1"], "sticky=1: allowed are numbers from 0 to below 1"),
        (["checkpoint=[]"], r"checkpoint=\[\]: allowed is a list of paths"),
        (["checkpoint=[a.ckpt,b.ckpt]"], "out=null: to compare checkpoints"),
        (["checkpoint=[a.ckpt,a.ckpt]"], "checkpoint=a.ckpt,a.ckpt: allowed are different paths"),
        (["out=/dev/null/report"], "out=/dev/null/report: cannot be made"),
        (["device=abacus"], "device=abacus: not available"),
        (["episode=3"], "episode.*(not in struct|no such key|Could not override)"),
    ],
)
def test_bad_input(cli, checkpoint: Path, arguments: list[str], words: str):
    if arguments and not arguments[0].startswith("checkpoint"):
        arguments = [f"checkpoint={checkpoint}", *arguments]
    ended = cli(*arguments, tiny=[], main=main)
    assert ended.code == 2 and ended.err.count("\n") == 1
    assert re.search(words, ended.err), ended.err


def altered(checkpoint: Path, path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of the checkpoint with something changed."""
    saved = torch.load(checkpoint, weights_only=True)
    change(saved)
    torch.save(saved, path)
    return path


@pytest.mark.parametrize("size", [10, 1000, 0.5, 0.99])
def test_truncated_checkpoint(cli, checkpoint: Path, tmp_path: Path, size: float):
    whole = checkpoint.read_bytes()
    (tmp_path / "a.ckpt").write_bytes(whole[: int(size * len(whole)) if isinstance(size, float) else size])
    ended = cli("checkpoint=a.ckpt", "out=out", tiny=[], main=main)
    assert ended.code == 2 and ended.err.count("\n") == 1 and "checkpoint=a.ckpt: not readable" in ended.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("memory.depth", 2, "of another architecture"),
        ("env.id", "MiniGrid-Nowhere-v0", "MiniGrid-Nowhere-v0"),
        ("env.keys", ["image", "direction"], "obs_space Box(0, 255, (7, 7, 3), uint8), but that of env.id"),
    ],
)
def test_checkpoint_that_does_not_fit(cli, checkpoint: Path, tmp_path: Path, key: str, value: Any, words: str):
    def change(saved: dict[str, Any]) -> None:
        group, name = key.split(".")
        saved["config"][group][name] = value
        saved["config"]["env"]["rooms"] = False  # needs a view

    altered(checkpoint, tmp_path / "a.ckpt", change)
    ended = cli("checkpoint=a.ckpt", "out=out", tiny=[], main=main)
    assert ended.code == 2 and ended.err.count("\n") == 1 and words in ended.err, ended.err
    assert not (tmp_path / "out").exists()


class Malicious:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_malicious_checkpoint_executes_nothing(cli, checkpoint: Path, tmp_path: Path, how: str):
    trap = tmp_path / "executed"
    if how == "torch":
        altered(checkpoint, tmp_path / "a.ckpt", lambda saved: saved.update(extra=Malicious(trap)))
    else:
        (tmp_path / "a.ckpt").write_bytes(pickle.dumps(Malicious(trap)))
    trap.unlink(missing_ok=True)
    ended = cli("checkpoint=a.ckpt", "out=out", tiny=[], main=main)
    assert ended.code == 2 and ended.err.count("\n") == 1 and "not readable" in ended.err
    assert not trap.exists() and not (tmp_path / "out").exists()
    pickle.loads(pickle.dumps(Malicious(trap)))
    assert trap.exists()  # it would have done harm


def test_comparison(checkpoint: Path, tmp_path: Path):
    other = altered(checkpoint, tmp_path / "other.ckpt", lambda saved: saved["state_dict"]["policy.actor.bias"].add_(1))
    common = {"episodes": 3, "num_envs": 3, "parts": ["returns", "memory"]}
    both = evaluate([checkpoint, other], out=tmp_path / "both", **common)
    alone = evaluate(other, out=tmp_path / "alone", **common)
    assert [x["checkpoint"] for x in both["checkpoints"]] == [str(checkpoint), str(other)]
    second = both["checkpoints"][1]
    assert second == {k: alone[k] for k in second}  # a checkpoint's numbers don't depend on its company
    page = (tmp_path / "both" / "report.html").read_text()
    assert "agent.ckpt" in page and "other.ckpt" in page


def test_help(cli):
    ended = cli("--help", tiny=[], main=main)
    assert ended.code == 0 and "worldmodel.evaluate checkpoint=" in ended.out and "horizons" in ended.out
