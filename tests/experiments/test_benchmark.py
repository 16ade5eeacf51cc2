"""Composition of suites, and the report from results.csv alone."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.cells import cell
from omegaconf import DictConfig, OmegaConf

from worldmodel.errors import ConfigError
from worldmodel.experiments.benchmark import command as benchmark
from worldmodel.experiments.benchmark.checklist import checklist
from worldmodel.experiments.benchmark.provenance import provenance
from worldmodel.experiments.benchmark.report import write_report
from worldmodel.experiments.benchmark.results import POINTS, Results, area, reached, rows_of, write
from worldmodel.experiments.benchmark.runner import last_row
from worldmodel.experiments.benchmark.suite import Cell, World, cells_of, with_presets
from worldmodel.experiments.benchmark.tables import (
    against_references,
    aggregate,
    behaviour,
    brittleness,
    by_method,
    evaluated,
    improvements,
    overview,
    television,
    to_threshold,
)
from worldmodel.training.config import CONFIG_DIR

SUITES = sorted(p.stem for p in (Path(CONFIG_DIR) / "suite").glob("*.yaml"))


def suite(**changes: object) -> DictConfig:
    node = {
        "name": "toy",
        "envs": {"a": ["experiment=doorkey"]},
        "methods": {"none": {"overrides": ["curiosity=none"]}},
    }
    return OmegaConf.create(node | changes)


def fabricate(cell: Cell, returns: list[float], status: str = "done", **columns: list[float]) -> None:
    """A run folder: a row of metrics every 1,000 steps and 1.5 s."""
    cell.folder.mkdir(parents=True)
    names = ["env_steps", "wall_s", "return_ext", *columns]
    rows = [[1000 * (i + 1), 1.5 * (i + 1), x, *(c[i] for c in columns.values())] for i, x in enumerate(returns)]
    lines = [names, *([("" if v != v else v) for v in row] for row in rows)]
    (cell.folder / "metrics.csv").write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
    machine = {"cpu": "abacus", "cores": 2, "gpu": None}
    record = {"status": status, "seed": cell.seed, "git": "abc123", "packages": {"torch": "2.0"}, "machine": machine}
    record |= {"env_steps": 1000 * len(returns), "wall_s": 1.5 * len(returns), "steps_per_s": 666.7}
    (cell.folder / "run.json").write_text(json.dumps(record))


# --- suites


@pytest.mark.parametrize("name", SUITES)
def test_every_method_and_every_environment_of_every_suite_composes(name: str) -> None:
    node = OmegaConf.load(Path(CONFIG_DIR) / "suite" / f"{name}.yaml")
    methods, worlds = list(node.methods), list(node.envs)
    check_cells(node, methods, worlds[:1])
    if worlds[1:]:
        check_cells(node, methods[:1], worlds[1:])


@pytest.mark.slow
@pytest.mark.parametrize("name", SUITES)
def test_every_cell_of_every_suite_composes(name: str) -> None:
    node = OmegaConf.load(Path(CONFIG_DIR) / "suite" / f"{name}.yaml")
    check_cells(node, list(node.methods), list(node.envs))


def check_cells(node: DictConfig, methods: list[str], worlds: list[str]) -> None:
    """Compose the cells of these methods and environments with one seed."""
    cells = cells_of(node, Path("out"), methods=methods, envs=worlds, seeds=[0])
    assert len(cells) == len(methods) * len(worlds)
    for one in cells:
        assert one.budget > 0 and one.folder == Path("out") / one.world.name / f"{one.method}_seed0"
        assert one.env != one.world.name, "the environment's own id"


def test_cells_are_methods_by_environments_by_seeds(tmp_path: Path) -> None:
    node = suite(
        envs={
            "big": {"overrides": ["experiment=doorkey"], "threshold": 0.5, "score": [-1, 3]},
            "small": ["experiment=doorkey", "env.id=MiniGrid-Empty-5x5-v0", "total_steps=7"],
        },
        methods={"x": {"seeds": 2, "overrides": ["curiosity=none"]}, "y": {"seeds": 1}},
        threshold=0.9,
        common=["video=false"],
    )
    cells = cells_of(node, tmp_path, overrides=["threads=1"])
    assert [(c.world.name, c.method, c.seed) for c in cells] == [
        ("big", "x", 0), ("big", "x", 1), ("big", "y", 0), ("small", "x", 0), ("small", "x", 1), ("small", "y", 0)
    ]  # fmt: skip
    assert cells[0].overrides == ("video=false", "experiment=doorkey", "curiosity=none", "threads=1")
    assert cells[0].world.threshold == 0.5 and cells[0].world.score == (-1, 3) and cells[3].world.threshold == 0.9
    assert [cells[0].env, cells[3].env] == ["MiniGrid-DoorKey-8x8-v0", "MiniGrid-Empty-5x5-v0"]
    assert [cells[0].budget, cells[3].budget] == [200_000, 7]
    assert [(c.method, c.seed) for c in cells_of(node, tmp_path, methods=["y"], envs=["small"], seeds=[100, 7])] == [
        ("y", 100),
        ("y", 7),
    ]
    later = cells_of(node, tmp_path, envs=["small"], first_seed=20)
    assert [(c.method, c.seed) for c in later] == [("x", 20), ("x", 21), ("y", 20)]


def test_presets_are_methods_and_an_environment_may_set_the_seeds(tmp_path: Path) -> None:
    (tmp_path / "rnd.yaml").write_text("overrides: [curiosity=rnd, reward.scale=0.1]\nprovenance: {draw: 3}\n")
    envs = {"a": {"overrides": ["experiment=doorkey"], "seeds": 2}, "b": ["experiment=doorkey"]}
    node = with_presets(suite(envs=envs, first_seed=20), tmp_path)
    found = [(c.world.name, c.method, c.seed, c.overrides) for c in cells_of(node, tmp_path, methods=["rnd_tuned"])]
    overrides = ("experiment=doorkey", "curiosity=rnd", "reward.scale=0.1")
    seeds = [("a", 20), ("a", 21), *(("b", 20 + i) for i in range(5))]
    assert found == [(world, "rnd_tuned", seed, overrides) for world, seed in seeds]
    assert [c.seed for c in cells_of(node, tmp_path, methods=["none"], envs=["a"], first_seed=3)] == [3, 4]
    with pytest.raises(ConfigError, match="has no preset"):
        with_presets(suite(), tmp_path / "none")
    (tmp_path / "bad.yaml").write_text("3\n")
    with pytest.raises(ConfigError, match=r"bad\.yaml is no preset"):
        with_presets(suite(), tmp_path)


def test_results_go_by_the_suites_own_names(tmp_path: Path) -> None:
    node = suite(envs={"still": ["experiment=doorkey"], "sticky": ["experiment=doorkey", "env.sticky=0.25"]})
    cells = [c for c in cells_of(node, tmp_path) if c.seed == 0]
    assert {c.env for c in cells} == {"MiniGrid-DoorKey-8x8-v0"}, "which do not tell them apart"
    assert [{r.env for r in rows_of("toy", c)} for c in cells] == [{"still"}, {"sticky"}]
    assert [row["env"] for row in provenance("toy", cells)["methods"].values()] == ["MiniGrid-DoorKey-8x8-v0"] * 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"foo": 1}, "suite.foo=1: no such key, allowed are name, envs"),
        ({"methods": {}}, "suite.methods={}: must be given"),
        ({"methods": {"x": {"seed": 3}}}, "suite.methods.x.seed=3: no such key, allowed are seeds, overrides"),
        ({"methods": {"x": {"overrides": ["curiosity=foo"]}}}, "x on a: "),
        ({"methods": {"x/y": {}}}, "suite.methods: 'x/y' names a folder"),
        ({"envs": {"a": {"overrides": [], "score": [1, 0]}}}, "suite.envs.a.score=[1, 0]: allowed are two numbers"),
    ],
)
def test_bad_suites(changes: dict, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        cells_of(suite(**changes), tmp_path)
    with pytest.raises(ConfigError, match=re.escape("methods=['foo']: allowed are none")):
        cells_of(suite(), tmp_path, methods=["foo"])


# --- results


def test_steps_to_threshold() -> None:
    steps, metric = np.array([1, 2, 3]), np.array([np.nan, 0.5, 0.95])
    assert reached(steps, steps / 2, metric, 0.9) == (3, 1.5)
    assert reached(steps, steps / 2, metric, 0.99) == (np.inf, np.inf)


def test_area_by_hand() -> None:
    # nothing known for 2 steps, then .5 for 2, then 1 up to 10
    assert area(np.array([2, 4]), np.array([0.5, 1.0]), 10, 0.0) == pytest.approx((2 * 0.5 + 6) / 10)
    assert area(np.array([2, 4]), np.array([np.nan, 1.0]), 10, -1.0) == pytest.approx((4 * -1 + 6) / 10)
    assert area(np.array([6, 12]), np.array([1.0, 9.0]), 10, 0.0) == pytest.approx(0.4), (
        "what is past the budget is not"
    )
    assert area(np.zeros(1), np.array([np.nan]), 10, -2.0) == -2.0


def test_rows_of_a_cell_by_hand(tmp_path: Path) -> None:
    world = World("E", (), threshold=0.5, score=(-1.0, 1.0))
    one = cell(tmp_path, "x", 3, world=world, budget=4000)
    fabricate(one, [float("nan"), 0.2, 0.6], coverage=[0.1, 0.2, 0.4])
    rows = rows_of("toy", one)
    values = {r.metric: r.value for r in rows if r.metric not in ("return_ext", "coverage")}
    assert values == pytest.approx({
        "finished": 1, "budget": 4000, "score": 0.8, "return_ext_auc": (-1 - 1 + 0.2 + 0.6) / 4, "threshold": 0.5,
        "steps_to_threshold": 3000, "seconds_to_threshold": 4.5, "return_final": 0.6, "coverage_final": 0.4,
        "coverage_auc": (0 + 0.1 + 0.2 + 0.4) / 4,
    })  # fmt: skip
    assert [(r.env_steps, r.value) for r in rows if r.metric == "return_ext"] == [(2000, 0.2), (3000, 0.6)]
    assert {(r.suite, r.env, r.method, r.seed) for r in rows} == {("toy", "E", "x", 3)}
    assert {(r.env_steps, r.wall_s) for r in rows if r.metric == "score"} == {(3000, 4.5)}


def test_costs_and_the_first_success_are_in_the_rows(tmp_path: Path) -> None:
    cells = [cell(tmp_path, m, s, budget=4000) for m in ("none", "x") for s in range(2)]
    for one in cells:
        good = one.method == "x"
        more = dict(success=[float("nan"), 0.1 * good, 0.5 * good], door_success=[0.5] * 3, alive_value=[0.25] * 3)
        fabricate(one, [0.0, 0.1 * good, 0.95 * good], **more, coverage_episode=[2.0] * 3, rooms_episode=[1.5] * 3)
        record = json.loads((one.folder / "run.json").read_text())
        (one.folder / "run.json").write_text(json.dumps(record | {"cpu_s": 7.0, "peak_memory_mb": 600.0}))
    results = Results(row for c in cells for row in rows_of("toy", c))
    assert results.values("steps_to_first_success", "E-v0", "x").tolist() == [2000, 2000]
    assert np.isinf(results.values("steps_to_first_success", "E-v0", "none")).all()
    assert behaviour(results, "E-v0").rows[1] == ["x", "2.0", "1.50", "0.50", "0.250", "7", "600"]
    rows = {
        row[0]: dict(zip(by_method(results, "E-v0").header, row, strict=True))
        for row in by_method(results, "E-v0").rows
    }
    assert rows["x"] == {
        "method": "x", "seeds": "2", "failed": "0", "steps to first success": "2k [2k, 2k]",
        "steps to threshold": "3k [3k, 3k]", "return, IQM [95 %]": "0.950 [0.950, 0.950]",
        "P(> none)": "1.00 [1.00, 1.00]",
    }  # fmt: skip
    assert rows["none"]["steps to threshold"] == "never [never, never]" and rows["none"]["failed"] == "2"
    assert against_references(results).rows[1] == ["x", "1.00 [1.00, 1.00]"]


def test_many_methods_have_a_panel_each_and_old_results_a_report(tmp_path: Path) -> None:
    names = ["surprise", "none", *(f"m{i}" for i in range(8))]
    cells = [cell(tmp_path, m, s) for m in names for s in range(2)]
    for i, one in enumerate(cells):
        fabricate(one, [0.0, 0.05 * i])
    write(tmp_path / "results.csv", [row for c in cells for row in rows_of("toy", c)])
    write_report(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.count('<figure class="small">') == len(names) and "Each method in E-v0" in page
    assert "CPU seconds" not in page and "P(row &gt; reference)" in page and "<script>" in page


def test_what_the_evaluation_said_is_in_the_rows(tmp_path: Path) -> None:
    one = cell(tmp_path, "x", 0, evaluate=())
    fabricate(one, [0.5])
    said = {"greedy": {"return_mean": 0.25, "success": None}, "sampled": {"return_mean": 0.75, "success": 0.8}}
    (one.folder / "report.json").write_text(json.dumps({"return_mean": 0.75, **said}))
    names = ("evaluated_greedy_return_mean", "evaluated_sampled_return_mean", "evaluated_sampled_success")
    results = Results(rows_of("toy", one))
    assert evaluated(results, "E-v0").header == ["method", *names]
    assert evaluated(results, "E-v0").rows == [["x", "0.250 ± 0.000", "0.750 ± 0.000", "0.800 ± 0.000"]]
    # a report with a section of returns has all behaviours there
    other = {"returns": {"sampled_unseen_levels": {"return_mean": 0.1, "success": None}}}
    (one.folder / "report.json").write_text(json.dumps(said | other))
    assert Results(rows_of("toy", one)).evaluated == ["evaluated_sampled_unseen_levels_return_mean"]
    assert evaluated(Results(rows_of("toy", replace(one, evaluate=None))), "E-v0") is None


def test_curves_are_thinned_and_keep_their_ends(tmp_path: Path) -> None:
    one = cell(tmp_path, "x", 0)
    fabricate(one, [i / 1000 for i in range(500)])
    kept = [r.value for r in rows_of("toy", one) if r.metric == "return_ext"]
    assert len(kept) == POINTS and kept[0] == 0 and kept[-1] == 0.499 and kept == sorted(kept)


def test_a_seed_that_failed_is_counted(tmp_path: Path) -> None:
    cells = [cell(tmp_path, "a", s) for s in range(3)]
    fabricate(cells[0], [0.2, 0.95])
    fabricate(cells[1], [0.1, 0.2], status="failed")
    results = Results(row for c in cells for row in rows_of("toy", c))
    assert results.values("score", "E-v0", "a") == pytest.approx([0.95, 0.2, 0.0])
    assert overview(results, "E-v0").rows[0][:4] == ["a", "1 of 3", "never", "–"]
    row = brittleness(results, "E-v0").rows[0]
    assert row[:4] == ["a", "3", "67%", "2"] and row[4:7] == ["0.000", "0.200", "0.950"]


# --- the report


@pytest.fixture
def compared(tmp_path: Path) -> Path:
    """Two methods in two environments with two seeds; the first is better everywhere."""
    rng = np.random.default_rng(0)
    cells = [cell(tmp_path, m, s, env=e) for e in ("E-v0", "F-v0") for m in ("good", "poor") for s in range(2)]
    for one in cells:
        top = 0.95 if one.method == "good" else 0.3
        fabricate(one, list(np.linspace(0, top, 10) + 0.01 * rng.random(10)), coverage=list(np.linspace(0, top, 10)))
    write(tmp_path / "results.csv", [row for c in cells for row in rows_of("toy", c)])
    return tmp_path


def test_the_csv_holds_everything(compared: Path) -> None:
    lines = (compared / "results.csv").read_text().splitlines()
    assert lines[0] == "suite,env,method,seed,env_steps,wall_s,metric,value"
    results = Results.read(compared / "results.csv")
    assert results.metric == "return_ext" and results.curve_names == ["return_ext", "coverage"]
    assert improvements(results).rows == [
        ["good", "–", "1.00 [1.00, 1.00]"], ["poor", "0.00 [0.00, 0.00]", "–"]
    ]  # fmt: skip
    assert [r[:3] for r in aggregate(results).rows] == [["good", "2", "4"], ["poor", "2", "4"]]
    reached = to_threshold(results, "F-v0").rows
    assert reached[0][:3] == ["good", "2 of 2", "10,000 [10,000, 10,000]"] and reached[1][2] == "never [never, never]"
    curves = results.curves("return_ext", "E-v0", "good", np.array([0.0, 10_000.0, 50_000.0]))
    assert curves.shape == (2, 3) and (curves[:, 1] == curves[:, 2]).all()


def test_the_report_is_built_from_the_csv_alone(compared: Path, cli) -> None:
    ended = cli(f"report={compared}", tiny=[], main=benchmark.main)
    assert ended.code == 0, ended.err
    page = (compared / "report.html").read_text()
    for words in (
        "Learning curves", "Probability of improvement", "Performance profiles", "Brittleness", "Coverage",
        "Steps and seconds to the threshold", "Reproducibility checklist", "not recorded", "good", "poor",
    ):  # fmt: skip
        assert words in page
    assert page.count("data:image/png;base64,") == 2 * 2 + 2 + 2 * 2 and not re.search(r'(src|href)="(?!data:|#)', page)
    assert "<table>" in page and "{{" not in page
    summary = (compared / "summary.md").read_text()
    assert "**E-v0**" in summary and "| good | 2 of 2 | 10,000 | 15 |" in summary
    assert (compared / "curves.png").stat().st_size > 1000
    write_report(compared)
    assert (compared / "report.html").read_text() == page, "the same CSV gives the same report"


def test_what_the_noisy_tv_took(tmp_path: Path) -> None:
    head = "suite,env,method,seed,env_steps,wall_s,metric,value\n"
    lines = [
        f"s,{env},{method},{seed},9,1.0,{metric},{value}\n"
        for env, share in (("action", 0.5), ("clean", None))
        for method, more in (("error", 0.25), ("surprise", 0.0))
        for seed in (0, 1)
        for metric, value in (
            ("score", 1.0),
            ("finished", 1.0),
            *([("tv_action_share_final", share + more), ("tv_action_share_auc", share / 2)] if share else []),
        )
    ]
    (tmp_path / "results.csv").write_text(head + "".join(lines))
    table = television(Results.read(tmp_path / "results.csv"))
    assert table.header == ["method", "action, at the end", "action, in all"]
    assert table.rows[0] == ["error", "0.750 [0.750, 0.750]", "0.250 [0.250, 0.250]"] and table.rows[1][0] == "surprise"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "has no results.csv"),
        ("a,b\n1,2\n", "its columns are not suite env method"),
        ("", "cannot be read"),
        ("suite,env,method,seed,env_steps,wall_s,metric,value\ns,e,m,0,1,1.0,score,high\n", "cannot be read"),
        ("suite,env,method,seed,env_steps,wall_s,metric,value\ns,e,m,0,1,1.0,other,1\n", "no metric 'score'"),
    ],
)
def test_a_report_of_nothing(cli, text: str | None, words: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "results.csv").write_text(text)
    ended = cli(f"report={tmp_path}", tiny=[], main=benchmark.main)
    assert ended.code == 2 and ended.err.count("\n") == 1 and words in ended.err


def test_the_checklist_is_filled_in_from_what_ran(compared: Path) -> None:
    results = Results.read(compared / "results.csv")
    answers = {item.question: item for item in checklist(results, None)}
    assert answers["The computing infrastructure"].answer == "not recorded"
    runs = answers["The exact number of training runs"]
    assert runs.answer == "yes" and "8 runs: 2 methods in 2 environments, 2 seeds each" in runs.evidence
    assert answers["Central tendency and variation (error bars), and what they mean"].answer == "partly"
    cells = [cell(compared, m, s, env=e) for e in ("E-v0", "F-v0") for m in ("good", "poor") for s in range(2)]
    made = provenance("toy", cells)
    answers = {item.question: item for item in checklist(results, made)}
    assert "2 cores of abacus" in answers["The computing infrastructure"].evidence
    assert "15 s a run on average" in answers["The average runtime of each result"].evidence
    assert answers["The code, and the version that made the results"].answer == "yes"
    assert answers["The range of hyper-parameters considered, and how the best were selected"].answer == "no"


# --- running


def test_the_last_whole_row(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    assert last_row(path) == {}
    path.write_text("a,b\n")
    assert last_row(path) == {}
    path.write_text("a,b\n" + "1,2\n" * 5000 + "3,4\n5,")
    assert last_row(path) == {"a": "3", "b": "4"}
