"""Two ranks with half the batch each: the gradients and statistics of one rank with the whole batch."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from helpers.ranks import free_port, run_on_two_ranks
from helpers.tiny import EASY, REPO, TINY, clone, open_stream, tiny_config
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from encoders import Standardise
from worldmodel.curiosity import per_env_buffers
from worldmodel.curiosity.byol_explore import RunningMean
from worldmodel.errors import NonFiniteLoss
from worldmodel.running_stats import RunningMeanStd
from worldmodel.training.build import EnvSpec, build_agent, build_module, env_spec
from worldmodel.training.checkpoint import read_checkpoint
from worldmodel.training.module import TrainingModule
from worldmodel.types import Minibatch, Rollout, ScoredRollout

CASES = [
    *(f"target={x}" for x in ("random", "codes", "inverse", "ema", "sigreg", "vicreg", "reconstruction")),
    *(f"curiosity={x}" for x in ("rnd", "max", "byol_explore", "learning_progress")),  # those with statistics
    "experiment=cartpole",  # vector observations have statistics as well
]


def learn(module: TrainingModule, roll: Rollout) -> tuple[ScoredRollout, dict[str, Tensor]]:
    """Score a rollout; the scored rollout, and rewards, advantages, statistics and this rank's own gradients."""
    agent = module.agent
    scored = agent.score(roll)
    module.training_step(Minibatch(scored, scored), 0)["loss"].backward()
    found = {f"grad/{name}": p.grad for name, p in agent.named_parameters() if p.grad is not None}
    for name, module in agent.named_modules():
        if isinstance(module, RunningMeanStd | RunningMean | Standardise):
            found |= {f"moments/{name}/{k}": v.clone() for k, v in module.state_dict().items()}
    return scored, found | {"roll/rew_int": scored.rew_int, "roll/adv": scored.adv, "env_steps": agent.env_steps}


def make(cfg: DictConfig, spec: EnvSpec) -> TrainingModule:
    """The same module on every rank."""
    torch.manual_seed(0)
    return build_module(cfg, build_agent(cfg, spec))


def rank_main(rank: int, port: int, folder: Path, specs: dict[str, EnvSpec]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    for case in CASES:
        module = make(OmegaConf.load(folder / f"{case}.yaml"), specs[case])
        agent = module.agent
        roll = Rollout(**torch.load(folder / f"{case}.roll"))[2 * rank : 2 * rank + 2]
        agent.reward_normalizer.reset(2)
        agent.return_scale.reset(2)
        agent.curiosity.reset(2)
        scored, found = learn(module, roll)
        for key, value in found.items():  # as DDP does
            if key.startswith("grad/"):
                dist.all_reduce(value)
                value /= 2
        torch.save(found, folder / f"{case}.{rank}")
    torch.save(restarted(module, make(OmegaConf.load(folder / f"{case}.yaml"), specs[case])), folder / f"state.{rank}")
    if rank:
        scored.ret_ext[0, 0] = torch.inf
    with pytest.raises(NonFiniteLoss) as caught:
        module.training_step(Minibatch(scored, scored), 0)
    (folder / f"broken.{rank}").write_text(str(caught.value))
    dist.destroy_process_group()


def restarted(module: TrainingModule, new: TrainingModule) -> list[dict[str, Tensor]]:
    """This rank's state of the environments before and after a restart, in which all ranks load the first one's."""
    for name, x in per_env_buffers(module.agent).items():
        if x.is_floating_point() and x.ndim:
            x.uniform_(generator=torch.Generator().manual_seed(dist.get_rank() + len(name)))
    before = {name: x.clone() for name, x in per_env_buffers(module.agent).items()}
    checkpoint: dict[str, Any] = {}
    module.on_save_checkpoint(checkpoint)
    state = [module.state_dict()]
    dist.broadcast_object_list(state)
    new.agent.reward_normalizer.reset(2)
    new.agent.return_scale.reset(2)
    new.agent.curiosity.reset(2)
    new.load_state_dict(state[0])
    new.on_load_checkpoint(checkpoint)
    new.on_train_start()
    return [before, per_env_buffers(new.agent)]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of each case in files: of two ranks, and of one rank with the whole batch."""
    folder = tmp_path_factory.mktemp("ranks")
    specs = {}
    for case in CASES:
        env = [] if case.startswith("experiment") else EASY
        cfg = tiny_config("policy.actor.memory_gradient=true", "reward.normalise=mean_std", case, *env)
        OmegaConf.save(cfg, folder / f"{case}.yaml")
        specs[case] = env_spec(cfg)
        module = make(cfg, specs[case])
        stream = open_stream(module.agent, cfg)
        roll = clone(stream.collector.collect())
        stream.close()
        roll.mask[0, -6:] = False  # masks fall unevenly: rank 0 has far fewer real steps
        roll.mask[1, -8:-2] = False
        torch.save(vars(roll), folder / f"{case}.roll")
        torch.save(learn(module, roll)[1], folder / f"{case}.whole")
    run_on_two_ranks(rank_main, free_port(), folder, specs)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_gradients_and_statistics_agree(both: Path, case: str) -> None:
    one, two = (torch.load(both / f"{case}.{rank}") for rank in (0, 1))
    whole = torch.load(both / f"{case}.whole")
    assert whole.keys() == one.keys() == two.keys()
    norm = torch.stack([v.norm() for k, v in whole.items() if k.startswith("grad/")]).norm()
    assert norm > 0
    for key, expected in whole.items():
        if key.startswith("grad/"):
            assert torch.equal(one[key], two[key])
            assert (one[key] - expected).norm() <= 1e-5 * max(float(expected.norm()), 1e-3 * float(norm)), key
        elif key.startswith("roll/"):
            # both are normalised to a spread of about 1, from differences of numbers far larger than they are: float32
            # products over half as many rows round otherwise, by a few 1e-5
            torch.testing.assert_close(torch.cat([one[key], two[key]]), expected, atol=1e-4, rtol=1e-5)
        else:
            torch.testing.assert_close(one[key], expected, atol=1e-6, rtol=1e-6)
            assert torch.equal(one[key], two[key]), key


def test_state_of_the_environments_returns_to_its_rank(both: Path) -> None:
    states = [torch.load(both / f"state.{rank}") for rank in (0, 1)]
    for before, after in states:
        assert {"reward_normalizer.sum", "return_scale.sum"} <= before.keys() == after.keys()
        torch.testing.assert_close(after, before)
    assert not torch.equal(states[0][0]["reward_normalizer.sum"], states[1][0]["reward_normalizer.sum"])


def test_a_loss_that_is_not_finite_stops_all_ranks(both: Path) -> None:
    one, two = ((both / f"broken.{rank}").read_text() for rank in (0, 1))
    assert re.search(r"not finite at env_steps=\d+: on another rank$", one) and two.endswith(": value")


@pytest.fixture(scope="module")
def run_of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that was stopped by a signal and continued."""
    work = tmp_path_factory.mktemp("two")
    tiny = [x for x in TINY if x.split("=")[0] not in ("env.num_envs", "threads")]
    command = [sys.executable, "-m", "worldmodel.train"]
    settings = [
        *tiny,
        *EASY,
        "env.num_envs=2",
        "data.minibatches=2",
        "data.model_every=2",
        "trainer.devices=2",
        "trainer.accelerator=cpu",
        "threads=1",
    ]
    environment = os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, *settings, "total_steps=1_000_000"],
        cwd=work, env=environment, text=True, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        limit = time.monotonic() + 80
        while not any(p.read_text().count("\n") > 3 for p in work.glob("runs/*/*/metrics.csv")):
            assert process.poll() is None and time.monotonic() < limit
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        error = process.communicate(timeout=60)[1]
        assert process.returncode == 75, error
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    (run,) = work.glob("runs/*/*")
    assert json.loads((run / "run.json").read_text())["status"] == "stopped"
    steps = int(read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]["agent.env_steps"])
    go_on = [*command, "checkpoint=auto", f"run_dir={run}", f"total_steps={steps + 3 * 32}"]
    ended = subprocess.run(go_on, cwd=work, env=environment, capture_output=True, text=True, timeout=80)
    errors = [line for line in ended.stderr.splitlines() if "find_unused_parameters" not in line]  # torch's hint, once
    assert ended.returncode == 0 and errors == [], ended.stderr
    return run


def test_a_run_of_two_ranks(run_of_two: Path) -> None:
    record = json.loads((run_of_two / "run.json").read_text())
    with (run_of_two / "metrics.csv").open(newline="") as file:
        steps = [int(row["env_steps"]) for row in csv.DictReader(file)]
    assert record["status"] == "done" and record["env_steps"] == steps[-1]
    counted = [after - before for before, after in pairwise([0, *steps])]
    assert all(24 <= x <= 28 for x in counted)  # 2 ranks of 2 environments and 8 steps, less one or two resets
    saved = read_checkpoint(run_of_two / "checkpoints" / "last.ckpt")
    assert [x["return_scale.sum"].shape for x in saved["per_env"]] == [(2,), (2,)]
    assert sorted(p.name for p in (run_of_two / "actions").iterdir()) == ["rank0_0.bin", "rank1_0.bin"]
    assert all(p.stat().st_size == len(steps) * 2 * 8 for p in (run_of_two / "actions").iterdir())
    one, two = (rank["reward_normalizer.sum"] for rank in saved["per_env"])
    assert one.shape == two.shape == (2,) and not torch.equal(one, two)
    assert saved["global_step"] == 4 * len(steps) and saved["state_dict"]["agent.reward_normalizer.sum"].shape == (2,)
    assert [p.name for p in run_of_two.parents[1].iterdir()] == [run_of_two.parent.name]
    assert not list(run_of_two.rglob("*.part"))
