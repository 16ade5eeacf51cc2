"""Signals to commands: the exit code, the streams, and what is left."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.runs import record, rows
from helpers.tiny import EASY, TINY

from worldmodel import interruption
from worldmodel.interruption import Interrupted, command_of, interruptible, resumes

PYTHON = ["/usr/bin/python"]


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["-m", "worldmodel.train", "seed=1"], "train"),
        (["-X", "dev", "-W", "ignore", "-mworldmodel.study"], "study"),
        (["/opt/bin/worldmodel-evaluate", "-m", "worldmodel.train"], "evaluate"),
        (["worldmodel/train.py"], "train"),
        (["-m", "pytest", "worldmodel/train.py"], None),
        (["-c", "import worldmodel"], None),
        ([], None),
    ],
)
def test_the_command_of_a_process(words: list[str], command: str | None) -> None:
    assert command_of([*PYTHON, *words]) == command


def test_which_commands_can_be_resumed() -> None:
    train = [*PYTHON, "-m", "worldmodel.train"]
    assert not resumes(train, ["seed=1"]) and not resumes(train, ["checkpoint=auto", "checkpoint=null"])
    assert resumes(train, ["checkpoint=auto"]) and resumes(train, ["+checkpoint=a/last.ckpt"])
    assert resumes([*PYTHON, "-m", "worldmodel.benchmark"], [])
    assert not resumes([*PYTHON, "-m", "worldmodel.evaluate"], ["checkpoint=a/last.ckpt"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_raises_once_and_handlers_return(number: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as ended, interruptible():
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)  # while cleaning up
    assert str(ended.value) == signal.Signals(number).name and ended.value.code == 130
    assert signal.getsignal(number) == before


def test_a_handler_of_a_launcher_is_kept() -> None:
    seen = []
    before = signal.signal(signal.SIGUSR2, lambda *_: seen.append(1))
    try:
        with interruptible():
            signal.raise_signal(signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert seen == [1]


def test_a_signal_in_a_finaliser_is_not_lost(capsys: pytest.CaptureFixture) -> None:
    class Raises:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted), interruptible():
        Raises()
        gc.collect()
        time.sleep(5)
    assert capsys.readouterr().err == ""


def handles(pid: int) -> bool:
    """Whether a process has a handler of SIGTERM; before this package is imported, signals are Python's own matter."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return True
    (caught,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def interrupted(command: list[str], cwd: Path, ready: Callable[[], bool], number: int) -> tuple[int, str, str]:
    """Start a command, send it a signal when it is ready, and return its exit code and its streams."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=cwd, env=environment, text=True, start_new_session=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    try:
        limit = time.monotonic() + 240
        while not (handles(process.pid) and ready()):
            assert process.poll() is None and time.monotonic() < limit, process.communicate()
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
        with pytest.raises(ProcessLookupError):  # the group has no process left
            for _ in range(100):
                os.killpg(process.pid, 0)
                time.sleep(0.05)
        return process.returncode, out, err
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def waits(seconds: float) -> Callable[[], bool]:
    began = time.monotonic()
    return lambda: time.monotonic() - began > seconds


@pytest.mark.parametrize(("words", "code"), [([], 130), (["checkpoint=auto", "run_dir=run"], 75)])
def test_a_signal_during_imports(tmp_path: Path, words: list[str], code: int) -> None:
    command = [sys.executable, "-m", "worldmodel.train", *words]
    assert interrupted(command, tmp_path, waits(0.0), signal.SIGINT) == (code, "", "")
    assert not list(tmp_path.iterdir())


def test_a_signal_during_the_film(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def film(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr("worldmodel.train.film", film)
    ended = cli("total_steps=32", "run_dir=run", "video=true")
    assert ended.code == 75 and ended.err == ""
    assert not list((tmp_path / "run").rglob("*.part")) and not (tmp_path / "run" / "run.lock").exists()
    monkeypatch.setattr("worldmodel.train.film", lambda *_: "none: of a test")
    assert cli("checkpoint=auto", "run_dir=run", tiny=[]).code == 0
    assert record(tmp_path / "run")["status"] == "done" and (tmp_path / "run" / "DONE").exists()


def test_a_signal_during_an_evaluation(cli, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from worldmodel import evaluate

    monkeypatch.setattr("worldmodel.evaluate.evaluate", lambda **_: signal.raise_signal(signal.SIGINT))
    monkeypatch.setattr("worldmodel.evaluate.check_call", lambda *_: None)
    words = [f"checkpoint={tiny_run}/checkpoints/last.ckpt", f"out={tmp_path}/out"]
    ended = cli(*words, tiny=[], main=evaluate.main)
    assert ended.code == 130 and "Traceback" not in ended.err and not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", [0.3, 1.5, 3.0, 4.5, 6.0, 8.0, 10.0])
def test_a_signal_at_any_moment(tmp_path: Path, after: float, number: int) -> None:
    """Imports, building, the first update and training, with environments in processes of their own."""
    words = [*TINY, *EASY, "env.engine=gymnasium", "env.vectorization=async", "run_dir=run", "total_steps=1_000_000"]
    code, _, err = interrupted([sys.executable, "-m", "worldmodel.train", *words], tmp_path, waits(after), number)
    run = tmp_path / "run"
    saved = (run / "checkpoints" / "last.ckpt").exists()
    assert code == (75 if saved else 130) and err == "", (code, err)
    assert not list(tmp_path.rglob("*.part")) and not (run / "run.lock").exists()
    assert not saved or (record(run)["status"] == "stopped" and len(rows(run)) >= 1)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", [0.3, 5.0, 8.0])
@pytest.mark.parametrize(
    ("command", "words", "code"),
    [
        ("evaluate", ["episodes=100000"], 130),
        ("profile", ["updates=100000", *TINY], 130),
        ("benchmark", ["suite=doorkey", "methods=[none]", "seeds=2", "jobs=2", "out=out"], 75),
        ("study", ["study=random_against_policy", "out=out", "jobs=2"], 75),
        ("speed", ["rounds=100000"], 130),
    ],
)
def test_a_signal_to_other_commands(
    tiny_run: Path, tmp_path: Path, command: str, words: list[str], code: int, after: float, number: int
) -> None:
    given = [f"checkpoint={tiny_run}/checkpoints/last.ckpt", "out=out"] if command == "evaluate" else []
    ended = interrupted([sys.executable, "-m", f"worldmodel.{command}", *given, *words], tmp_path, waits(after), number)
    assert ended[0] == code and "Traceback" not in ended[2] and "Exception ignored" not in ended[2], ended
    assert not list(tmp_path.rglob("*.part"))


def test_a_second_signal_after_a_while_ends_the_process(tmp_path: Path) -> None:
    script = (
        "import signal, time, worldmodel.interruption as i\n"
        "i.GRACE_S = 0.1\n"
        "with i.interruptible():\n"
        "    try:\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "    finally:\n"
        "        time.sleep(0.3); signal.raise_signal(signal.SIGINT); time.sleep(30)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=25, check=False)
    assert ended.returncode == interruption.INTERRUPTED and ended.stderr == ""
