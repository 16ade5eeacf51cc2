"""Studies at a tiny scale, trained in this process, with known skills and importances."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.runs import run_main
from helpers.tiny import EASY, TINY
from hydra.utils import instantiate
from omegaconf import OmegaConf

from worldmodel import evaluate, study
from worldmodel.envs.worlds.chaos import rk4
from worldmodel.envs.worlds.pendulum import flow, outputs_of, sample_states
from worldmodel.errors import ConfigError
from worldmodel.experiments.behaviour import cross_skill, skills, train_on
from worldmodel.experiments.benchmark.runner import finished
from worldmodel.experiments.benchmark.suite import Cell
from worldmodel.experiments.studies.sim_scale import horizon, simulate
from worldmodel.experiments.study_runner import StudyRunner
from worldmodel.training.compose import compose_config, composing
from worldmodel.training.config import CONFIG_DIR
from worldmodel.training.loading import load_agent
from worldmodel.training.run import continued, train

STUDIES = sorted(p.stem for p in (Path(CONFIG_DIR) / "study").glob("*.yaml"))
TRAINS_NOTHING = ("replay_age",)
COMMON = [*TINY, *EASY, "total_steps=64"]
RANDOM = ["curiosity=none", "policy.actor.temperature=1000.0", "policy.actor.temperature_end=1000.0"]


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyRunner:
    """A runner that trains in this process, one run after the other."""

    def train_here(self: StudyRunner, cells: Sequence[Cell]) -> None:
        for cell in cells:
            if finished(cell):
                continue
            with composing():
                words = [*cell.overrides, f"seed={cell.seed}", f"run_dir={cell.folder}"]
                cfg = compose_config(words, purpose=cell.method)
            train(continued(cfg, words))
            if cell.evaluate is not None:
                checkpoint = f"checkpoint={cell.folder / 'checkpoints' / 'last.ckpt'}"
                assert run_main([checkpoint, "num_envs=4", *cell.evaluate], main=evaluate.main) == 0

    monkeypatch.setattr(StudyRunner, "train", train_here)
    return StudyRunner("toy", tmp_path / "out", jobs=1)


def table(runner: StudyRunner) -> list[list[str]]:
    with (runner.out / "table.csv").open(newline="") as file:
        return list(csv.reader(file))


def load(name: str, **changes: object) -> object:
    node = OmegaConf.to_container(OmegaConf.load(Path(CONFIG_DIR) / "study" / f"{name}.yaml"))
    return instantiate(node | changes, _convert_="all")


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_is_a_function_of_its_configuration(name: str) -> None:
    partial = load(name)
    with pytest.raises(TypeError, match="runner"):
        partial()  # nothing else is lacking


@pytest.mark.parametrize("name", [x for x in STUDIES if x not in TRAINS_NOTHING])
def test_every_study_asks_for_runs_that_can_be_configured(
    name: str, runner: StudyRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "hyperparameters":
        pytest.importorskip("optuna")
    asked: list[Cell] = []

    class Enough(Exception):
        pass

    def stop(self: StudyRunner, cells: Sequence[Cell]) -> None:
        asked.extend(cells)  # each of them has been composed
        raise Enough

    monkeypatch.setattr(StudyRunner, "train", stop)
    study_node = OmegaConf.load(Path(CONFIG_DIR) / "study" / f"{name}.yaml")
    seeds = {"seeds": study_node.seeds[:1]} if "seeds" in study_node else {}
    with pytest.raises(Enough):
        load(name, **seeds)(runner=runner)
    assert asked and all(cell.budget >= 20_000 for cell in asked)


def test_skill_on_each_behaviour(runner: StudyRunner) -> None:
    trained = train_on(runner, {"same": RANDOM, "again": RANDOM, "other": ["curiosity=error"]}, COMMON, [100])
    found = skills(trained, episodes=8)
    assert found.shape == (3, 3, 1) and np.isfinite(found).all() and (found <= 1).all()
    assert (found[0] == found[1]).all() and (found[:, 0] == found[:, 1]).all(), "one run twice"
    assert (found == skills(trained, episodes=8)).all(), "the same arguments give the same numbers"
    agents = [load_agent(trained[name][0].folder / "checkpoints" / "last.ckpt") for name in ("other", "same")]
    for x in agents[0][0].model.heads["dynamics"].delta.out.parameters():
        x.data.zero_()
    assert cross_skill(agents, 8, seed=100)[0] == pytest.approx(0.0, abs=1e-6), "no change predicted is no skill"


def test_random_against_policy(runner: StudyRunner) -> None:
    load("random_against_policy", behaviours={"random": RANDOM, "policy": []}, common=COMMON, seeds=[100], episodes=4)(
        runner=runner
    )
    header, *rows = table(runner)
    assert header == ["A \\ B", "random", "policy"] and [r[0] for r in rows] == ["random", "policy"]
    said = (runner.out / "table.md").read_text()
    assert (runner.out / "plot.png").stat().st_size > 1000 and "Skill is 1 -" in said
    assert re.search(
        r" 2 runs of 2 cells, 168 environment steps, 0 minutes .* on \d+ cores of .*; code .*; torch ", said
    )


def test_null_action(runner: StudyRunner) -> None:
    behaviours = {"null": ["policy.actor.null_bias=1000.0"], "acting": RANDOM}
    run = load("null_action", behaviours=behaviours, common=COMMON, seeds=[100, 101], episodes=4, threshold=-1e9)
    run(runner=runner)
    _, *rows = table(runner)
    assert [r[0] for r in rows] == ["null", "acting"] and rows[1][1] == "28", "reached with the first update"
    assert (runner.out / "plot.png").stat().st_size > 1000


def test_judged(runner: StudyRunner) -> None:
    figures = {"return": "sampled.return_mean", "ratio": "sampled.length / sampled.length"}
    asked = {"agents": {"x": RANDOM}, "common": COMMON, "seeds": [100, 101], "part": "returns", "episodes": 4}
    load("known_answer", **asked, figures=figures)(runner=runner)
    header, row = table(runner)
    assert header == ["agent", "return", "ratio", "CPU seconds of training"]
    reports = [json.loads((runner.out / "runs" / f"x_seed{s}" / "report.json").read_text()) for s in (100, 101)]
    assert [r["seed"] for r in reports] == [100, 101] and reports[0]["episodes"] == 4, "each on episodes of its own"
    found = [r["returns"]["sampled"]["return_mean"] for r in reports]
    assert row[1].startswith(f"{np.mean(found):.5g} [") and row[1].endswith(f"{min(found):.5g} to {max(found):.5g}")
    assert row[2] == "1 [1, 1], 1 to 1" and (runner.out / "plot.png").stat().st_size > 1000
    for figure, message in (("sampled.x", "no 'x', allowed there are .*return_mean"), ("sampled", "is no number")):
        with pytest.raises(ConfigError, match=rf"^study\.figures={figure}: .*{message}"):
            load("known_answer", **asked, figures={"f": figure})(runner=runner)
    with pytest.raises(ConfigError, match=r"^study\.part=curiosity: "):
        load("known_answer", **asked | {"part": "curiosity"}, figures=figures)(runner=runner)


@pytest.mark.skipif(
    "levels" not in OmegaConf.load(Path(CONFIG_DIR) / "env" / "base.yaml"), reason="environments have no levels here"
)
def test_negative_bias(runner: StudyRunner) -> None:
    common = [x for x in COMMON if x != "total_steps=64"] + ["env.engine=gymnasium"]
    sizes = {"pretraining": 64, "steps": 96, "levels": 3, "seeds": [100], "episodes": 4}
    load("negative_bias", common=common, **sizes)(runner=runner)
    header, *rows = table(runner)
    assert header[1] == "steps on the task"
    assert [r[:2] for r in rows] == [["pretrained", "96"], ["scratch", "96"], ["longer", "160"]]
    runs = {p.name: OmegaConf.load(p / "config.yaml") for p in (runner.out / "runs").iterdir()}
    explored, tuned = (runs[f"{name}_seed100"] for name in ("exploration", "pretrained"))
    assert explored.policy.objective.weight_ext == explored.weights.rew == 0 and tuned.policy.objective.weight_ext == 2
    assert tuned.weights.rew == runs["scratch_seed100"].weights.rew > 0 and tuned.env.levels == 3
    with (runner.out / "runs" / "pretrained_seed100" / "metrics.csv").open(newline="") as file:
        assert [int(r["env_steps"]) for r in csv.DictReader(file)] == [112, 140, 168], "it goes on from the checkpoint"


def test_curriculum(runner: StudyRunner) -> None:
    lessons = {"easy": ["policy.objective.gamma_ext=0.9", "total_steps=64"], "hard": ["total_steps=96"]}
    common = [x for x in COMMON if x != "total_steps=64"]
    rules = {"agents": {"agent": []}, "lessons": lessons, "common": common, "seeds": [100, 101]}
    load("curriculum", **rules, threshold=2.0)(runner=runner)
    _, *rows = table(runner)
    assert [r[:4] for r in rows] == [[x, "agent", "0 of 2", "–"] for x in lessons]
    for seed in rules["seeds"]:
        folder = runner.out / "runs" / f"agent_hard_seed{seed}"
        with (folder / "metrics.csv").open(newline="") as file:
            assert [int(r["env_steps"]) for r in csv.DictReader(file)] == [112], "it goes on from the lesson before"
        cfg = OmegaConf.load(folder / "config.yaml")
        assert (cfg.seed, cfg.policy.objective.gamma_ext, cfg.stop_return) == (seed, 0.9, 2.0)
        run = json.loads((folder / "run.json").read_text())
        assert (run["env_steps"], run["steps_before"]) == (112, 84)
        assert run["steps_per_s"] == pytest.approx(28 / run["wall_s"], abs=0.06), (
            "the lesson before had a time of its own"
        )
    assert "224 environment steps" in (runner.out / "table.md").read_text(), "none is counted twice"
    assert (runner.out / "plot.png").stat().st_size > 1000


def test_sim_scale(runner: StudyRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worldmodel.experiments.studies.sim_scale.Pendulums.lyapunov_time", lambda self: (1.1, 0.0))
    common = [x for x in TINY if x not in ("data.rollout_length=8", "target.dim=8")]
    common += ["experiment=pendulum", "env.kwargs.interval=0.1", "data.rollout_length=64", "total_steps=256"]
    sizes = {"steps": [0.01, 0.1], "dims": [2], "resolutions": [0.0], "copies": 8, "ahead": 10, "reference": 0.01}
    load("sim_scale", common=common, seeds=[100], **sizes)(runner=runner)
    header, fine, coarse = table(runner)
    assert header[:3] == ["step, s", "numbers seen", "rounded to"] and (fine[0], coarse[0]) == ("0.01", "0.1")
    assert fine[4] == "≥ 0.91", "the reference itself, to the last of ten observations"
    assert 0 < float(coarse[4].removeprefix("≥ ")) <= 0.92
    assert float(fine[3]) < 0.9 and float(fine[5]) > 0.5, "an untrained model knows where it is, not what comes"
    assert (runner.out / "plot.png").stat().st_size > 1000


def test_simulations_of_known_and_of_rounded_states() -> None:
    state = sample_states(np.random.default_rng(0), 4, 0.0)
    exact = outputs_of(np.stack([state, rk4(flow, state, 0.01, 10), rk4(flow, state, 0.01, 20)], 1))[..., :2]
    np.testing.assert_allclose(simulate(state, 0.01, 0.1, 0.0, 2), exact, atol=1e-12)
    coarse = simulate(state, 0.1, 0.1, 0.0, 2)
    assert (coarse[:, 0] == exact[:, 0]).all() and 0 < np.abs(coarse - exact).max() < 0.1
    rounded = simulate(state, 0.01, 0.1, 0.2, 0)[:, 0]
    assert 0.01 < np.abs(rounded - exact[:, 0]).max() < 0.4


def test_when_a_curve_falls() -> None:
    time = np.array([0.0, 1.0, 2.0])
    assert horizon(time, np.array([1.0, 0.75, 0.25]), 0.5) == 1.5
    assert horizon(time, np.array([0.4, 0.9, 0.9]), 0.5) == 0 and horizon(time, np.ones(3), 0.5) == 2


def test_hyperparameters(runner: StudyRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")
    pytest.importorskip("sklearn")
    trained = []

    def pretend(self: StudyRunner, cells: Sequence[Cell]) -> None:
        """Only one of two parameters matters, and there is a best value."""
        for cell in cells:
            trained.append(cell)
            lr = float(next(o for o in cell.overrides if o.startswith("optimizer.lr=")).split("=")[1])
            cell.folder.mkdir(parents=True, exist_ok=True)
            value = 1 - (np.log10(lr) + 3) ** 2
            (cell.folder / "metrics.csv").write_text(f"env_steps,return_ext\n0,{value}\n64,{value}\n")

    monkeypatch.setattr(StudyRunner, "train", pretend)
    space = {
        "optimizer.lr": {"low": 1e-4, "high": 1e-2, "log": True},
        "data.epochs": {"low": 1, "high": 4},
        "model.predicts": {"choices": ["delta", "absolute"]},
    }
    run = load("hyperparameters", space=space, common=COMMON, seeds=[100, 101], trials=9, batch=2)
    run(runner=runner)
    header, *rows = table(runner)
    assert header == ["parameter", "importance", "searched", "best"]
    assert rows[0][0] == "optimizer.lr" and float(rows[0][1]) > 0.7 and rows[0][2] == "0.0001 to 0.01 (log)"
    assert sum(float(r[1]) for r in rows) == pytest.approx(1, abs=0.01)
    assert len(trained) == 18 and [c.seed for c in trained[:2]] == [100, 101]
    first, trained[:] = list(trained), []
    run(runner=runner)
    assert [c.overrides for c in trained] == [c.overrides for c in first], "started again it asks for the same trials"


def test_bad_spaces(runner: StudyRunner) -> None:
    pytest.importorskip("optuna")
    run = load("hyperparameters", space={"optimizer.lr": {"low": 1}}, common=COMMON)
    with pytest.raises(ConfigError, match=r"study.space.optimizer.lr=.*: allowed are low, high and log, or choices"):
        run(runner=runner)


@pytest.mark.parametrize("words", ["study=foo", "jobs=0", "study.common=[foo=1]", "study.seed=3", "study.seeds=3"])
def test_bad_input(cli, words: str) -> None:
    ended = cli(words, tiny=[], main=study.main)
    assert ended.code == 2 and ended.err.count("\n") == 1 and words.split("=")[0].split(".")[-1] in ended.err


def test_the_replay_as_it_grows(runner: StudyRunner) -> None:
    common = [*TINY, *EASY, "data.replay_capacity=8"]
    load("replay_age", common=common, steps=[20, 400], repeats=2)(runner=runner)
    head, *found = table(runner)
    assert [row[:2] for row in found] == [
        [kind, str(count)]
        for kind in ("memory, uniform", "disk, uniform", "disk, curious")
        for count in (24, 400)  # whole sequences of 8 steps
    ]
    size = head.index("disk, MB")
    small, large = (float(row[size]) for row in found[2:4])
    assert large / small == pytest.approx(400 / 24, rel=0.1) and {row[size] for row in found[:2]} == {"0"}
    assert [row[head.index("against the smallest")] for row in found[::2]] == ["1"] * 3
    assert sorted(p.name for p in runner.out.iterdir()) == ["plot.png", "table.csv", "table.md"]
    with pytest.raises(ConfigError, match=r"study.steps"):
        load("replay_age", common=common, steps=[400, 20])(runner=runner)


def test_scaling(runner: StudyRunner) -> None:
    common = ["experiment=mess3", "total_steps=1024", "data.model_every=4"]
    load("scaling", widths=[8, 16, 32], depths=[1], common=common, seeds=[100], episodes=2)(runner=runner)
    header, *rows = table(runner)
    assert [row[:2] for row in rows] == [["8", "1"], ["16", "1"], ["32", "1"]]
    size = [int(row[2].replace(",", "")) for row in rows]
    assert 3 < size[1] / size[0] < 4 < 4 * size[1] + 100 > size[2], "about the square of the width"
    assert all(0 < float(row[header.index("bits above the optimum")]) < 1 for row in rows)
    saved = [torch.load(path, weights_only=True) for path in sorted(runner.out.glob("runs/*/checkpoints/last.ckpt"))]
    tokens = [x["SequenceData"]["replay"]["obs"] for x in saved]
    assert len(tokens) == 3 and all(torch.equal(x, tokens[0]) for x in tokens), "all models read the same tokens"
    with pytest.raises(ConfigError, match=r"study.widths=\[8\].*three models"):
        load("scaling", widths=[8], depths=[1, 2])(runner=runner)


def test_noise_scale(runner: StudyRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    def pretend(self: StudyRunner, cells: Sequence[Cell]) -> None:
        for cell in cells:
            cell.folder.mkdir(parents=True, exist_ok=True)
            rows = [f"{10 * t},{t if t > 5 else ''},{cell.seed},{t / 10}" for t in range(1, 11)]
            header = "env_steps,noise_scale_model,noise_scale_policy,return_ext"
            (cell.folder / "metrics.csv").write_text("\n".join([header, *rows, ""]))

    monkeypatch.setattr(StudyRunner, "train", pretend)
    load("noise_scale", common=[*COMMON, "data.replay_capacity=8", "data.replay_batch=1"], seeds=[3, 5],
         shares=[0.2, 1.0])(runner=runner)  # fmt: skip
    header, *rows = table(runner)
    assert header == ["", "batch of the run", "at 20%", "at 100%"]
    assert rows == [
        ["world model, sequences", "3", "-", "10"],
        ["policy, steps", "16", "4", "4"],
        ["return", "", "0.2", "1"],
    ]
    assert (runner.out / "plot.png").stat().st_size > 1000
    with pytest.raises(ConfigError, match=r"study\.shares="):
        load("noise_scale", shares=[0.0])(runner=runner)
