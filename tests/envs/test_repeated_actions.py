"""Environments that are restored by repeating actions: the limit, and states whose size does not grow."""

from __future__ import annotations

import io
from pathlib import Path

import helpers.lasting  # noqa: F401  # registers its environment
import pytest
import torch

from worldmodel.envs import make_env


def saved(env) -> tuple[dict, int]:
    """The state of an environment as a checkpoint has it, and its size in bytes."""
    torch.save(env.state_dict(), buffer := io.BytesIO())
    return torch.load(io.BytesIO(buffer.getvalue()), weights_only=True), buffer.tell()


def steps(env, count: int, seed: int = 0) -> list:
    generator = torch.Generator().manual_seed(seed)
    return [env.step(torch.randint(2, (env.num_envs,), generator=generator)) for _ in range(count)]


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_the_state_of_an_endless_episode_does_not_grow(tmp_path: Path, vectorization: str) -> None:
    path, sizes = tmp_path / "actions.bin", []
    env = make_env("Lasting-v0", "gymnasium", 2, seed=3, vectorization=vectorization)
    env.record(path)
    env.reset()
    for _ in range(3):
        steps(env, 100)
        state, size = saved(env)
        sizes.append(size)
    assert max(sizes) - min(sizes) < 64 and path.stat().st_size == 600  # numbers of the generators differ in length
    then = steps(env, 20, seed=1)
    env.close()
    again = make_env("Lasting-v0", "gymnasium", 2, seed=9, vectorization=vectorization)
    again.record(path)
    again.reset()
    assert again.load_state_dict(state)
    for one, two in zip(then, steps(again, 20, seed=1), strict=True):
        assert torch.equal(one.obs, two.obs) and one.obs[0, 1] > 300
    again.close()


def test_the_limit_truncates_the_episodes_of_single_copies() -> None:
    env = make_env("Lasting-v0", "gymnasium", 2, seed=3)
    env.record(limit=10)  # over both copies
    env.reset()
    found = steps(env, 13)
    assert [s.trunc.tolist() for s in found] == [[t % 6 == 4] * 2 for t in range(13)]
    assert [s.ignored.tolist() for s in found] == [[t % 6 == 5] * 2 for t in range(13)]
    assert [s.obs[0, 1].item() for s in found] == [1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 0, 1]
    assert not any(s.end.any() for s in found) and not env.is_spent(100)
    for count in (3, 1, 5):  # within an episode, at its truncation and at the reset after it
        steps(env, count)
        state, then = saved(env)[0], steps(env, 8, seed=2)
        again = make_env("Lasting-v0", "gymnasium", 2)
        again.record(limit=10)
        again.reset()
        assert again.load_state_dict(state) and again._log is not None and len(again._log) <= 5
        both = zip(then, steps(again, 8, seed=2), strict=True)
        assert all(torch.equal(a.obs, b.obs) and torch.equal(a.trunc, b.trunc) for a, b in both)


def test_an_engine_without_a_state_is_spent_at_its_limit(tmp_path: Path) -> None:
    env = make_env("CartPole-v1", "envpool", 2)
    env.record(tmp_path / "a.bin", limit=40)
    assert not env.is_spent(100), "a new environment has repeated nothing"
    env.reset()
    steps(env, 12)
    assert not env.is_spent(8) and env.is_spent(9)
    assert make_env("CartPole-v1", "envpool", 2).repeat_limit > make_env("Pong-v5", "envpool", 2).repeat_limit


def test_what_the_engine_executed_is_repeated(tmp_path: Path) -> None:
    """Sticky actions are drawn above the record, and box actions are exact."""
    for id, act in (("CartPole-v1", lambda g: torch.randint(2, (2,), generator=g)),
                    ("Pendulum-v1", lambda g: torch.rand(2, 1, generator=g))):  # fmt: skip
        generator = torch.Generator().manual_seed(0)
        acts = [act(generator) for _ in range(40)]
        envs = [make_env(id, "envpool", 2, seed=5, sticky=0.5) for _ in range(2)]
        for env in envs:
            env.record(tmp_path / f"{id}.bin")
            env.reset()
        for a in acts[:20]:
            envs[0].step(a)
        state = saved(envs[0])[0]
        assert envs[1].load_state_dict(state)
        for a in acts[20:]:
            one, two = (env.step(a) for env in envs)
            assert torch.equal(one.obs, two.obs) and torch.equal(one.end, two.end)
