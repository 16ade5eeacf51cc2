"""Runner of a benchmark's cells: single runs, resuming, and stopping together."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.cells import cell
from helpers.tiny import REPO, TINY

from worldmodel.experiments.benchmark import command as benchmark
from worldmodel.experiments.benchmark.results import Results
from worldmodel.experiments.benchmark.runner import Runner, command, finished
from worldmodel.experiments.benchmark.suite import Cell

SMALL = [x for x in TINY if x != "threads=1"]


def tiny_benchmark(out: Path, *words: str, steps: int = 64) -> list[str]:
    overrides = ",".join(f"'{x}'" for x in [*SMALL, f"total_steps={steps}", "env.id=MiniGrid-Empty-5x5-v0"])
    return ["suite=doorkey", "methods=[none]", f"overrides=[{overrides}]", f"out={out}", *words]


def test_a_benchmark_runs_its_cells_once(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    words = tiny_benchmark(tmp_path, "seeds=2", "jobs=2")
    ended = cli(*words, tiny=[], main=benchmark.main)
    assert ended.code == 0, ended.err + ended.out
    runs = sorted(tmp_path.glob("doorkey/none_seed?/run.json"))
    assert [json.loads(r.read_text())["seed"] for r in runs] == [0, 1]
    results = Results.read(tmp_path / "results.csv")
    assert results.envs == ["doorkey"] and len(results.values("score", results.envs[0], "none")) == 2
    made = json.loads((tmp_path / "benchmark.json").read_text())
    assert made["finished"] == 2 and made["methods"]["doorkey/none"]["seeds"] == [0, 1]
    assert "torch" in (tmp_path / "report.html").read_text()
    before = [r.stat().st_mtime_ns for r in runs]
    assert cli(*words, tiny=[], main=benchmark.main).code == 0
    assert [r.stat().st_mtime_ns for r in runs] == before, "what is done isn't run again"
    ended = cli(*tiny_benchmark(tmp_path, "seeds=2", steps=96), tiny=[], main=benchmark.main)
    assert ended.code == 2 and "was run with other overrides (total_steps=64 total_steps=96)" in ended.err


CHILD = """
import json, pathlib, signal, sys, time
folder, wanted = pathlib.Path(sys.argv[1]), sys.argv[2]
end = lambda status, code: ((folder / "run.json").write_text(json.dumps({"status": status})), sys.exit(code))
signal.signal(signal.SIGTERM, lambda *_: end("stopped", 75))
(folder / "started").touch()
if wanted == "wait":
    time.sleep(60)
end(wanted, wanted == "failed")
"""


def act_as(monkeypatch: pytest.MonkeyPatch, **wanted: str) -> None:
    """Let each method's processes be small scripts: done, failed, or wait for a signal."""

    def command(cell: Cell) -> list[str]:
        return [sys.executable, "-c", CHILD, str(cell.folder), wanted[cell.method]]

    monkeypatch.setattr("worldmodel.experiments.benchmark.runner.command", command)


def test_a_failed_cell_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    act_as(monkeypatch, a="failed", b="done")
    cells = [cell(tmp_path, m, 0) for m in "ab"]
    runner = Runner(cells, jobs=1)
    runner.run(poll_s=0.01)
    assert list(runner.state.values()) == ["failed", "done"] and not runner.signalled
    assert "a_seed0: failed with exit code 1, see " in capsys.readouterr().out
    assert list(Runner(cells, jobs=1).state.values()) == ["waiting", "done"], "it is tried again next time"


def test_a_cell_that_another_process_has_run_meanwhile_is_not_run_again(tmp_path: Path, monkeypatch) -> None:
    act_as(monkeypatch, a="failed")
    one = cell(tmp_path, "a", 0)
    runner = Runner([one], jobs=1)
    one.folder.mkdir(parents=True)
    (one.folder / "run.json").write_text('{"status": "done"}')
    runner.run(poll_s=0.01)
    assert list(runner.state.values()) == ["done"] and not (one.folder / "started").exists()


def test_a_signal_stops_the_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    act_as(monkeypatch, a="wait")
    cells = [cell(tmp_path, "a", s) for s in range(3)]
    runner, before = Runner(cells, jobs=2), signal.getsignal(signal.SIGTERM)

    def once_they_run() -> None:
        while sum((c.folder / "started").exists() for c in cells) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=once_they_run).start()
    runner.run(poll_s=0.01)
    assert runner.signalled == "SIGTERM" and not runner.running
    assert list(runner.state.values()) == ["stopped", "stopped", "waiting"], "no other cell was started"
    assert json.loads((cells[0].folder / "run.json").read_text())["status"] == "stopped"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_stopped_cell_goes_on_from_its_checkpoint(tiny_run: Path, tmp_path: Path) -> None:
    one = cell(tmp_path, "a", 7, overrides=("experiment=doorkey",))
    fresh = ["worldmodel.train", "experiment=doorkey", "seed=7", f"run_dir={one.folder}", "threads=1"]
    fresh += ["overwrite=true"]  # of a run without a checkpoint
    assert command(one)[2:] == fresh
    shutil.copytree(tiny_run, one.folder)
    (one.folder / "run.json").write_text('{"status": "stopped"}')
    last = one.folder / "checkpoints" / "last.ckpt"
    assert command(one)[2:] == ["worldmodel.train", f"checkpoint={last}", f"run_dir={one.folder}"]
    (one.folder / "run.json").write_text('{"status": "done"}')
    judged = replace(one, evaluate=("episodes=3",))
    assert finished(one) and not finished(judged)
    assert command(judged)[2:] == ["worldmodel.evaluate", f"checkpoint={last}", "episodes=3"]
    (one.folder / "report.json").write_text("{}")
    assert finished(judged)
