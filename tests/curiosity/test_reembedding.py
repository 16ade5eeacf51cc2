"""Episodic memories of signals that learn: present weights for all rows, exact resume, refusal of old checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from helpers.rollouts import cut
from helpers.tiny import EASY, tiny_config
from helpers.worlds import VIEW, pay, rollout, signal, views
from torch import Tensor, nn

from encoders import Dict as DictEncoder
from worldmodel.curiosity import DEIR, ETD, NGU, Curiosity, per_env_buffers
from worldmodel.curiosity.blocks.reembedding import ObservationMemory
from worldmodel.curiosity.etd import quasimetric
from worldmodel.errors import ConfigError
from worldmodel.running_stats import RunningMeanStd
from worldmodel.training.build import build_agent, env_spec
from worldmodel.training.checkpoint import fit_check
from worldmodel.training.resume import with_own_environments
from worldmodel.types import Rollout

KINDS = {
    "ngu": (NGU, {"dim": 8, "hidden": 16, "neighbours": 3, "rnd_dim": 8}),
    "deir": (DEIR, {"dim": 8, "hidden": 16}),
    "etd": (ETD, {"dim": 16, "hidden": 16, "width": 8}),
}


@pytest.fixture(params=KINDS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def small(name: str, envs: int = 3, seed: int = 0, **options) -> Curiosity:
    """A signal without running statistics, so that rewards depend on the weights and the episode alone."""
    torch.manual_seed(seed)
    kind, sizes = KINDS[name]
    curiosity = signal(kind, envs=envs, **sizes | options)
    for moments in curiosity.modules():
        if isinstance(moments, RunningMeanStd):
            moments.horizon = float("inf")
            moments.count.fill_(moments.horizon)
    return curiosity


def journey(envs: int = 3, rows: int = 31) -> Rollout:
    torch.manual_seed(1)
    path = torch.randint(0, 9, (envs, rows)).tolist()
    return rollout(views(path), torch.randint(0, 3, (envs, rows)).sort(1).values.tolist())


@torch.no_grad()
def learn(curiosity: Curiosity, seed: int) -> None:
    """Change all weights that learn, as an update does."""
    torch.manual_seed(seed)
    for p in curiosity.parameters():
        if p.requires_grad:
            p.add_(0.3 * torch.randn_like(p))


@torch.no_grad()
def oracle(curiosity: Curiosity, roll: Rollout, n: int, t: int) -> float:
    """The reward of row t + 1 of environment n, with the present weights for all rows of its episode."""
    rows = [i for i in range(t + 1) if roll.episode[n, i] == roll.episode[n, t + 1]]
    if not rows:
        return 0.0
    obs = roll.obs[n, [*rows, t + 1]]
    if isinstance(curiosity, ETD):
        x = curiosity.embed(curiosity.features(obs))
        return float(quasimetric(x[:-1], x[-1]).min())
    if isinstance(curiosity, DEIR):
        e = curiosity.features(obs)
        tau = torch.cat([torch.zeros_like(e[:1]), curiosity.gru.cells[0](e[:-1, None])[0][:, 0]])
        return float(((e[:-1] - e[-1]).square().sum(-1) / ((tau[:-1] - tau[-1]).norm(dim=-1) + 1e-6)).min())
    phi = curiosity.features.features(obs)
    near = (phi[:-1] - phi[-1]).norm(dim=-1).sort().values[: curiosity.neighbours].square()
    near = near / curiosity.nearest.std.square()
    kernel = curiosity.eps / ((near - curiosity.cluster).clamp_min(0) + curiosity.eps)
    similarity = float(kernel.sum().sqrt()) + curiosity.c
    error = curiosity.distillation(roll.obs[n, t + 1])
    alpha = float((1 + curiosity.novelty(error)).clamp(1, curiosity.limit))
    return alpha / similarity if similarity <= curiosity.max_similarity else 0.0


def test_rewards_are_those_of_the_present_weights_for_the_whole_episode(name: str) -> None:
    curiosity, roll = small(name), journey()
    for start, stop in ((0, 9), (9, 10), (10, 22), (22, 30)):
        learn(curiosity, start)
        got = pay(curiosity, cut(roll, start, stop))
        expected = torch.tensor([[oracle(curiosity, roll, n, t) for t in range(start, stop)] for n in range(3)])
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
        same = roll.episode[:, start + 1 : stop + 1] == roll.episode[:, start:stop]
        assert (got[same] > 0).any() and (got[~same] == 0).all()


def test_an_old_view_stays_old_after_an_update(name: str) -> None:
    curiosity, roll = small(name, envs=1), rollout(views([[1, 2, 3, 4, 1, 2, 3, 4, 5]]))
    pay(curiosity, cut(roll, 0, 4))
    learn(curiosity, 2)
    got = pay(curiosity, cut(roll, 4, 8))[0]
    assert got[:3].max() < 0.2 * got[3], "only the last view is new"


def test_an_episode_longer_than_the_memory(name: str) -> None:
    """Rows beyond the capacity are not read, wherever rollouts are cut."""
    roll = rollout(views([torch.randperm(9).tolist() * 3] * 2))
    expected = pay(small(name, envs=2, capacity=5), cut(roll, 0, 26))
    parts = small(name, envs=2, capacity=5)
    got = torch.cat([pay(parts, cut(roll, a, b)) for a, b in ((0, 3), (3, 4), (4, 16), (16, 26))], 1)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(expected, pay(small(name, envs=2, capacity=20), cut(roll, 0, 26)))


def test_a_checkpoint_continues_exactly(name: str, tmp_path: Path) -> None:
    one, two, roll = small(name), small(name, seed=5), journey()
    pay(one, cut(roll, 0, 9))
    torch.save(one.state_dict(), tmp_path / "state.pt")
    two.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for curiosity in (one, two):
        learn(curiosity, 3)
    for a, b in ((9, 20), (20, 30)):
        assert torch.equal(pay(one, cut(roll, a, b)), pay(two, cut(roll, a, b)))


def test_another_number_of_environments_begins_with_empty_memories(name: str) -> None:
    curiosity, roll = small(name), journey()
    pay(curiosity, cut(roll, 0, 9))
    other = small(name, envs=2)
    other.load_state_dict(with_own_environments(curiosity.state_dict(), other))
    assert all(len(x) == 2 for x in per_env_buffers(other).values())
    two = roll[:2]
    fresh = small(name, envs=2)
    assert torch.equal(pay(other, cut(two, 9, 20)), pay(fresh, cut(two, 9, 20)))


def test_an_old_checkpoint_is_refused_in_one_line(name: str) -> None:
    cfg = tiny_config(f"curiosity={name}", "curiosity.capacity=16", *EASY)
    agent = build_agent(cfg, env_spec(cfg))
    state = {k: v for k, v in agent.state_dict().items() if ".past." not in k and ".oldest" not in k}
    state["curiosity.memory.rows"] = torch.zeros(4, 16, 7, 7, 3)
    state["curiosity.memory.episode"] = torch.full((4, 16), -1)
    with pytest.raises(ConfigError, match=r"checkpoint=old: of another architecture, curiosity\.memory\.") as error:
        fit_check(state, agent, "old")
    assert "\n" not in str(error.value)


class Counting(nn.Module):
    """A linear embedding that counts its rows."""

    def __init__(self, size: int):
        super().__init__()
        self.weight, self.rows = torch.randn(size, 4), 0

    def forward(self, obs: Tensor) -> Tensor:
        self.rows += len(obs)
        return obs.flatten(1).float() @ self.weight


def test_equal_observations_are_embedded_once() -> None:
    memory, embed = signal(ObservationMemory, envs=2, capacity=64), Counting(147)
    roll = rollout(views([[1, 2, 1, 2, 1, 2, 3], [4] * 7]))
    x = memory(cut(roll, 0, 3), embed).x
    assert embed.rows == 3 and x.shape == (2, 4, 4) and torch.equal(x[0, 0], x[0, 2])
    embed.rows = 0
    x, episode, seen = memory(cut(roll, 3, 6), embed)
    assert embed.rows == 4 and x.shape == (2, 7, 4) and (episode == 0).all()
    assert seen[0].tolist() == [[True] * (4 + t) + [False] * (2 - t) for t in range(3)]
    with pytest.raises(ValueError, match=r"curiosity.capacity=0"):
        signal(ObservationMemory, capacity=0)


def test_rows_of_other_episodes_are_not_embedded() -> None:
    memory, embed = signal(ObservationMemory, capacity=64), Counting(147)
    roll = rollout(views([[1, 2, 3, 4, 5, 6, 7]]), [[0, 0, 0, 1, 1, 1, 1]])
    memory(cut(roll, 0, 4), embed)
    embed.rows = 0
    x, episode, _ = memory(cut(roll, 4, 6), embed)
    assert embed.rows == 4 and episode.tolist() == [[1] * 4] and x.shape == (1, 4, 4)


def test_dictionaries_are_stored_with_their_dtypes() -> None:
    space = Dict({"a.b": Discrete(5), "view": VIEW, "x": Box(-1, 1, (2,))})
    memory = signal(ObservationMemory, space, DictEncoder, envs=2, capacity=8)
    assert memory.past.rows()["view"].dtype == torch.uint8 and memory.past.rows()["x"].dtype == torch.float32
    roll = rollout(views([[1, 2, 1, 4]] * 2))
    roll.obs = {"a.b": torch.tensor([[3, 2, 3, 0]] * 2), "view": roll.obs, "x": torch.zeros(2, 4, 2)}
    x = memory(roll, lambda obs: torch.cat([obs["a.b"][:, None].float(), obs["view"].flatten(1).float()], 1)).x
    assert x[0, :, 0].tolist() == [3, 2, 3, 0] and torch.equal(x[0, 0], x[0, 2])
    memory.past.reset(5)
    assert memory.past.rows()["a.b"].shape == (5, 8) and (memory.past.episode == -1).all()
