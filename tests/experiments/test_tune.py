"""Tuning with equal budgets: shared draws, ranking by hand, and resuming."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import pytest
from helpers.tiny import REPO, TINY, tiny_config
from omegaconf import OmegaConf

from worldmodel import tune
from worldmodel.envs.spec import EnvSpec
from worldmodel.errors import ConfigError
from worldmodel.experiments.population.space import by_key
from worldmodel.experiments.tune.command import trials
from worldmodel.experiments.tune.draws import make_draws, write_draws
from worldmodel.experiments.tune.ranking import finalists, places, ranking
from worldmodel.experiments.tune.results import FIGURES, Run, read_runs
from worldmodel.training.build import build_agent, env_spec
from worldmodel.training.compose import compose_config
from worldmodel.training.config import CONFIG_DIR

CFG = compose_config([], name="tune")
SPACE = OmegaConf.to_container(CFG.space)
SIGNALS = list(CFG.suite.methods)
BUILDERS = {"none", "product", "weighted_sum"}  # no signals


# --- draws


def test_all_signals_are_tuned_and_have_a_setting_of_their_own() -> None:
    shipped = {p.stem for p in Path(CONFIG_DIR, "curiosity").glob("*.yaml")} - BUILDERS
    assert shipped | {"surprise_codes"} == set(SIGNALS) == set(CFG.own)
    for signal, node in CFG.suite.methods.items():
        more = ["target=codes"] if signal == "surprise_codes" else []
        assert node.overrides == [f"curiosity={signal.removesuffix('_codes')}", *more]


def test_more_trials_keep_the_draws_and_the_file_is_that_of_the_command(tmp_path: Path) -> None:
    few, many = make_draws(SPACE, 5, CFG.seed), make_draws(SPACE, 9, CFG.seed)
    assert few == many[:5] and few[0].values == {} and few[0].own is None
    write_draws(tmp_path / "draws.csv", many, list(by_key(SPACE)))
    assert (tmp_path / "draws.csv").read_text() == (REPO / "docs/results/tune/draws.csv").read_text()
    write_draws(tmp_path / "draws.csv", few, list(by_key(SPACE)))  # fewer of the same
    with pytest.raises(ConfigError, match="was tuned with other draws"):
        write_draws(tmp_path / "draws.csv", make_draws(SPACE, 5, CFG.seed + 1), list(by_key(SPACE)))


def test_a_block_covers_each_range_and_all_pairs_of_both_switches() -> None:
    drawn = [draw.values for draw in make_draws(SPACE, 5, CFG.seed)[1:]]
    assert len({(x["policy.objective.episodic_int"], x["reward.centred"]) for x in drawn}) == 4
    assert sorted(x["policy.objective.gamma_int"] for x in drawn) == [0.9, 0.97, 0.99, 0.997]
    assert [sum(x["reward.scale"] > 0.05 * 40 ** (i / 4) for x in drawn) for i in range(4)] == [4, 3, 2, 1]


def test_all_signals_share_the_draws_and_the_first_is_the_shipped_preset(tmp_path: Path) -> None:
    draws, chosen = make_draws(SPACE, 3, CFG.seed), ["surprise", "count", "rnd"]
    found = trials(CFG, tmp_path, 1, dict.fromkeys(chosen, draws))
    assert [(x.signal, x.draw) for x in found] == [(s, d) for s in chosen for d in range(3)]
    common = {}
    for trial in found:
        curiosity, *drawn = trial.overrides
        assert curiosity == f"curiosity={trial.signal}" and (drawn == []) == (trial.draw == 0)
        own = CFG.own[trial.signal].key
        assert trial.draw == 0 or drawn[-1].startswith(f"{own}=")
        common.setdefault(trial.draw, set()).add(tuple(x for x in drawn if not x.startswith(own)))
        assert [cell.seed for cell in trial.cells] == [100, 101] and trial.cells[0].budget == 150_000
    assert all(len(values) == 1 for values in common.values())
    shipped = found[0].cells[0].overrides
    assert shipped == ("video=false", "logger=none", "experiment=doorkey", "total_steps=150000", "stop_return=0.9", "curiosity=surprise")  # noqa: E501  # fmt: skip


@pytest.fixture(scope="module")
def spec() -> EnvSpec:
    return env_spec(tiny_config())


@pytest.mark.slow
@pytest.mark.parametrize("signal", SIGNALS)
def test_every_draw_of_every_signal_builds(signal: str, spec: EnvSpec) -> None:
    for draw in make_draws(SPACE, 5, CFG.seed):
        build_agent(
            tiny_config(*CFG.suite.methods[signal].overrides, *draw.overrides(OmegaConf.to_container(CFG.own[signal]))),
            spec,
        )


# --- ranking


def run(signal: str, draw: int, auc: float, seed: int = 100, door: float = float("nan"), rooms: float = 1.0, stage: int = 1) -> Run:  # noqa: E501  # fmt: skip
    figures = dict(auc=auc, return_final=auc, success=auc, door_success=door, rooms=rooms)
    return Run(stage, signal, draw, seed, tuple(figures[name] for name in FIGURES), {})


def test_ranking_by_hand() -> None:
    runs = [
        run("a", 0, 0.2), run("a", 0, 0.4, 101), run("a", 1, 0.5), run("a", 1, 0.0, 101),  # 0.3, 0.25
        run("b", 0, 0.0), run("b", 0, 0.0, 101, rooms=2.0), run("b", 2, 0.0, rooms=3.0),   # rooms 1.5, 3 / 2
        run("c", 0, 0.0), run("c", 3, 0.0, door=0.4),  # door 0.2
        run("d", 1, 0.5),  # the second run is missing: 0.25, as a's draw 1
    ]  # fmt: skip
    one = [(x.signal, x.draw) for x in places(runs, 1, seeds=2)]
    assert one == [("a", 0), ("a", 1), ("d", 1), ("c", 3), ("b", 0), ("b", 2), ("c", 0)]
    assert places(runs, 1, 2)[0].score == (0.3, 0.0, 1.0) and places(runs, 2, 2) == []
    assert finalists(runs, signals=3, draws=2, seeds=2) == {"a": [0, 1], "d": [1], "c": [3, 0]}
    assert [x.signal for x in ranking(runs, 2)] == ["a", "d", "c", "b"]
    # stage 2: d before a; a's draw 1 before its draw 0; c and d's figures tie, stage 1 decides
    runs += [run("a", 0, 0.1, stage=2), run("a", 1, 0.2, stage=2), run("d", 1, 0.6, stage=2), run("c", 3, 0.6, stage=2)]
    ranked = ranking(runs, 2)
    assert [(x.signal, x.draw) for x in ranked] == [("d", 1), ("c", 3), ("a", 1), ("b", 0)]
    assert ranked[2].first.score[0] == 0.25 and ranked[2].shipped.score[0] == 0.3 and ranked[3].second is None
    assert ranked[0].shipped is None


# --- running

SMALL = [x for x in TINY if x != "threads=1"]


def words(out: Path, *more: str) -> list[str]:
    changes = [*SMALL, "total_steps=64", "env.id=MiniGrid-Empty-5x5-v0", "+env.kwargs.max_episode_steps=6"]
    overrides = ",".join(f"'{x}'" for x in changes)
    return [
        "signals=[count,re3]",
        "trials=2",
        "seeds=1",
        "finalists=1",
        f"overrides=[{overrides}]",
        f"out={out}",
        *more,
    ]


def test_a_tuning_runs_nothing_twice(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    ended = cli(*words(tmp_path, "stage=1", "signals=[count]"), tiny=[], main=tune.main)
    assert ended.code == 0, ended.err + ended.out
    assert [x[:4] for x in sorted(read_runs(tmp_path / "results.csv"))] == [(1, "count", d, 100) for d in range(2)]
    lines = (tmp_path / "results.csv").read_text().splitlines(keepends=True)
    (tmp_path / "results.csv").write_text("".join(lines[:2]))  # as after a kill before the second row
    assert cli(*words(tmp_path), tiny=[], main=tune.main).code == 0
    with (tmp_path / "results.csv").open() as file:
        table = list(csv.DictReader(file))
    assert sorted((r["stage"], r["signal"], r["draw"]) for r in table)[:4] == [
        ("1", s, d) for s in ("count", "re3") for d in "01"
    ]
    assert len(table) == 6 and {r["signal"] for r in table if r["stage"] == "2"} <= {"count", "re3"}
    shipped = next(r for r in table if r["draw"] == "0")
    assert (shipped["reward.scale"], shipped["reward.centred"], shipped["own"]) == ("0.3", "False", "curiosity.scope")
    assert float(shipped["optimizer.part_lr.curiosity"]) == 0.002 and float(shipped["cpu_s"]) > 0
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*/*/run.json")}
    assert len(before) == 6
    ended = cli(*words(tmp_path), tiny=[], main=tune.main)
    assert ended.code == 0 and before == {p: p.stat().st_mtime_ns for p in before}
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 7
    for signal in ("count", "re3"):
        preset = OmegaConf.load(tmp_path / "presets" / f"{signal}.yaml")
        assert preset.overrides[0] == f"curiosity={signal}" and preset.provenance.seeds == [100]
        compose_config(preset.overrides)
    for world in ("doorkey", "keycorridor"):  # as on another machine
        shutil.rmtree(tmp_path / world, ignore_errors=True)
    assert cli(*words(tmp_path), tiny=[], main=tune.main).code == 0 and not list(tmp_path.glob("*/*/run.json"))
    (tmp_path / "ranking.md").unlink()
    assert cli(f"out={tmp_path}", "only_report=true", tiny=[], main=tune.main).code == 0
    assert "**doorkey: return area by draw**" in (tmp_path / "ranking.md").read_text()


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("signals=[foo]", "signals=['foo']: allowed are surprise, "),
        ("trials=0", "trials=0: allowed are whole numbers from 1"),
        ("stage=3", "stage=3: allowed are null, 1, 2"),
        ("stage=2", "has no run of stage 1"),
        ("only_report=true", "has no results.csv"),
        ("suite=sparse", "suite=sparse: allowed are suites with two environments"),
        ("+own.foo={key: x}", "own=['foo']: allowed are the signals"),
        ("own.rnd=3", "own.rnd=3: allowed is a mapping"),
        ("space=[{key: x}]", "space={'key': 'x'}: allowed are key with low"),
        ("jobs=0", "jobs=0: allowed are null and whole numbers from 1"),
        ("foo=1", "foo=1: no such key"),
    ],
)
def test_bad_input_is_one_line(word: str, line: str, cli, tmp_path: Path) -> None:
    ended = cli(word, f"out={tmp_path}/x", tiny=[], main=tune.main)
    assert ended.code == 2 and re.search(re.escape(line), ended.err) and ended.err.count("\n") == 1, ended.err
