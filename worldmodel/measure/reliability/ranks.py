"""Two ranks with half of a rollout each, against one rank with all of it."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.measure.reliability.runs import small_config, start
from worldmodel.training.build import build_agent, build_data, env_spec
from worldmodel.types import Minibatch, Rollout

TARGETS = ("random", "inverse", "ema", "sigreg", "vicreg", "reconstruction")
OVERRIDES = (
    "policy.actor.memory_gradient=true",
    "policy.actor.memory_gain=1.0",
    "reward.normalise=mean_std",
    "data.model_every=1",
    "data.replay_batch=0",
)


def ranks(folder: Path, scale: float, device: str = "cpu") -> dict[str, Any]:
    """Largest difference of a parameter's gradient, relative to its norm, for each latent target.

    If the norm is below a thousandth of that of all gradients, the latter is used. Masks are distributed unevenly over
    the two ranks.
    """
    targets = TARGETS[: max(round(len(TARGETS) * scale), 1)]
    folder.mkdir(parents=True, exist_ok=True)
    for target in targets:
        agent, roll = _agent_and_rollout(target, device)
        roll.mask[0, -6:] = False
        roll.mask[1, -8:-2] = False
        torch.save(vars(roll), folder / f"{target}.roll")
        torch.save(_gradients(agent, roll), folder / f"{target}.one")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [start(_rank, rank, port, folder, targets, device) for rank in (0, 1)]
    for process in processes:
        process.join()
        if process.exitcode:
            raise RuntimeError(f"a rank ended with exit code {process.exitcode}")
    found = {}
    for target in targets:
        one, two = (torch.load(folder / f"{target}.{name}", weights_only=True) for name in ("one", "two"))
        floor = 1e-3 * float(torch.stack([g.norm() for g in one.values()]).norm())
        found[target] = max(float((two[k] - g).norm()) / max(float(g.norm()), floor) for k, g in one.items())
    return {"max_relative_difference": found}


def _agent_and_rollout(target: str, device: str) -> tuple[CuriousAgent, Rollout]:
    torch.manual_seed(0)
    cfg = small_config(f"target={target}", *OVERRIDES)
    agent, stream = build_agent(cfg, env_spec(cfg)).to(device), build_data(cfg).stream
    stream.open(agent.make_actor)
    roll = stream.collector.collect().map(torch.clone)
    stream.close()
    return agent, roll


def _gradients(agent: CuriousAgent, roll: Rollout) -> dict[str, torch.Tensor]:
    scored = agent.score(roll)
    agent.weighted_sum(agent.losses(Minibatch(scored, scored)).terms).backward()
    return {name: p.grad for name, p in agent.named_parameters() if p.grad is not None}


def _rank(rank: int, port: int, folder: Path, targets: tuple[str, ...], device: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    for target in targets:
        agent, _ = _agent_and_rollout(target, device)
        half = Rollout(**torch.load(folder / f"{target}.roll", weights_only=True))[2 * rank : 2 * rank + 2]
        agent.reward_normalizer.reset(2)
        agent.return_scale.reset(2)
        agent.curiosity.reset(2)
        found = _gradients(agent, half)
        for value in found.values():  # as DDP does
            dist.all_reduce(value)
            value /= 2
        if rank == 0:
            torch.save(found, folder / f"{target}.two")
    dist.destroy_process_group()
