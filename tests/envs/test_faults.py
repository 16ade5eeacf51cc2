"""Environments that fail: their replacement, the masked rows, the count, and the error after too many."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import pytest
import torch
from helpers.locked import LOCK, locked_cartpole
from helpers.runs import rows
from helpers.tiny import REPO, tiny_agent

from worldmodel.envs import TooManyFaults, make_env
from worldmodel.envs.engines import fault_tolerant_vector
from worldmodel.envs.engines.workers import Remote
from worldmodel.measure.reliability.breaking import KINDS, Breaking

gym.register("Breaking-v0", entry_point=Breaking)
PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
DEADLY = ("die", "freeze")
CASES = [("sync", k) for k in KINDS if k not in DEADLY] + [("async", k) for k in KINDS]


@pytest.fixture(autouse=True)
def _failures_of_copies(monkeypatch) -> None:
    """All copies of these environments fail early and in the same way; elsewhere that is an error of the code."""
    monkeypatch.setattr(fault_tolerant_vector, "FIRST_STEPS", 0)


@pytest.mark.parametrize("vectorization, kind", CASES)
def test_a_copy_that_breaks_is_replaced(vectorization: str, kind: str, capfd) -> None:
    env = make_env(
        "Breaking-v0", num_envs=2, vectorization=vectorization, timeout=2.0 if kind == "freeze" else 60.0, kind=kind,
        after=5, length=5 if kind == "raise_in_reset" else 1000,
    )  # fmt: skip
    names, seen = [env.reset()[:, 0]], []
    for t in range(1, 13):
        step = env.step(torch.tensor([0, 1]))
        names.append(step.obs[:, 0])
        if step.fault is not None:
            seen.append(t)
            assert step.fault.all() and step.ignored.all() and not step.rew.any()
            assert not step.end.any() and not step.trunc.any()
            assert not step.obs[:, 1].any() and not torch.isin(step.obs[:, 0], torch.cat(names[:-1])).any()
        else:
            assert torch.equal(step.rew, (~step.ignored).float())
            assert torch.equal(names[-1], names[-2]) or step.ignored.all()
    # a new copy's fifth step breaks again; where resets do, the step after the fifth is a reset
    assert seen == ([6, 12] if kind == "raise_in_reset" else [5, 10])
    error = capfd.readouterr().err
    assert error.count("warning: environment 0 is replaced: ") == error.count("\n") / 2 == 2
    env.close()


def test_the_same_seed_gives_the_same_replacements() -> None:
    def observe(seed: int) -> torch.Tensor:
        env = make_env("Breaking-v0", num_envs=2, seed=seed, after=3)
        return torch.stack([env.reset()] + [env.step(torch.tensor([0, 1])).obs for _ in range(8)])

    assert torch.equal(observe(0), observe(0)) and not torch.equal(observe(0), observe(1))


def test_too_many() -> None:
    env = make_env("Breaking-v0", num_envs=2, after=2, max_faults=3)
    env.reset()
    with pytest.raises(TooManyFaults, match=r"^env.max_faults=3: one more environment failed, copy 1: Run"):
        for _ in range(4):
            env.step(torch.tensor([0, 1]))


def test_rows_of_a_fault() -> None:
    """The lost step is masked, and the step before it is a truncation."""
    overrides = ["env=cartpole", "env.id=Breaking-v0", "+env.after=3", "encoder=mlp", "encoder.hidden=[16]"]
    agent, stream, _ = tiny_agent(*overrides)
    roll = stream.collector.collect()
    mask, trunc, episode, valid, rew = (roll.new_steps(x)[0].tolist() for x in (
        roll.mask, roll.trunc, roll.episode, roll.valid, roll.rew_ext
    ))  # fmt: skip
    assert mask == [1, 1, 0, 1, 1, 0, 1, 1] and all(valid) and rew == [1, 1, 0, 1, 1, 0, 1, 1]
    assert trunc == [0, 1, 0, 0, 1, 0, 0, 0] and episode == [0, 0, 0, 1, 1, 1, 2, 2]
    names = roll.new_steps(roll.obs)[0, :, 0]
    assert len(names.unique()) == 3 and names[0] == names[2] != names[3]
    assert stream.collector.episodes.faults == 8 and not stream.collector.episodes.finished
    scored = agent.objective.score(roll, roll.new_steps(roll.rew_ext), torch.zeros_like(roll.logp))
    stream.close()
    # the step before is bootstrapped from the value of the last observation before the fault, and no further
    expected = rew[1] + agent.objective.gamma_ext * roll.value_ext[0, 2] - roll.value_ext[0, 1]
    torch.testing.assert_close((scored.ret_ext - roll.value_ext[:, :-1])[0, 1], expected)


def test_a_run_counts_its_faults_and_ends_after_too_many(cli, tmp_path: Path) -> None:
    settings = ["env=cartpole", "env.id=Breaking-v0", "encoder=mlp", "encoder.hidden=[16]", "run_dir=run"]
    ended = cli("total_steps=120", *settings, "+env.after=5")  # every fifth step of a copy breaks and is lost
    run = tmp_path / "run"
    # after four updates of 4 x 8 steps, 128 - 24; after the fifth 160 - 32
    assert ended.code == 0 and [r["env_faults"] for r in rows(run)] == [4, 12, 16, 24, 32]
    assert rows(run)[-1]["env_steps"] == 160 - 32
    ended = cli("checkpoint=auto", "total_steps=256", "run_dir=run", "env.max_faults=2", tiny=[])
    assert ended.code == 1 and ended.err.splitlines()[-1].startswith("error: env.max_faults=2: one more environment")
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "failed" and record["error"].startswith("TooManyFaults: env.max_faults=2")


def test_workers_end_with_their_parent() -> None:
    code = """
import signal, torch
from worldmodel.envs import make_env
signal.signal(signal.SIGTERM, lambda *_: None)
env = make_env("CartPole-v1", "gymnasium", 2, vectorization="async")
env.reset()
print(*(w.process.pid for w in env.venv.workers), flush=True)
input()
env.step(torch.tensor([0, 1]))
print(env.venv.faults, flush=True)
input()
"""
    environment = os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    parents = {
        end: subprocess.Popen(command, env=environment, start_new_session=True, **PIPES) for end in ("killed", "done")
    }
    try:
        pids = {end: [int(word) for word in parent.stdout.readline().split()] for end, parent in parents.items()}
        for parent in parents.values():
            os.killpg(parent.pid, signal.SIGTERM)  # only the parent reacts to a signal to the group
        time.sleep(0.3)
        for end, parent in parents.items():
            parent.stdin.write("\n")
            parent.stdin.flush()
            assert parent.stdout.readline() == "0\n"
            assert len(pids[end]) == 2 and all(_alive(pid) for pid in pids[end])
        done = parents["done"]  # with its environments left open
        done.stdin.write("\n")
        done.stdin.flush()
        assert done.wait(timeout=20) == 0
    finally:
        for parent in parents.values():
            parent.kill()
            parent.wait()
    limit = time.monotonic() + 10
    while any(_alive(pid) for both in pids.values() for pid in both):
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_a_worker_inherits_no_lock() -> None:
    """A fork would inherit a lock that another thread holds, such as a compiler's, for ever."""
    with LOCK:
        worker = Remote(locked_cartpole)
        worker.ask("reset", 0)
        obs, _ = worker.answer(time.monotonic() + 30)
    worker.close()
    assert obs.shape == (4,)


def _alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
