"""The chain and the double pendulum, by hand and against published solutions."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

from worldmodel.envs import make_env
from worldmodel.envs.worlds.chain import Chains
from worldmodel.envs.worlds.chaos import lyapunov_exponent, rk4
from worldmodel.envs.worlds.pendulum import Pendulums, energy_of, flow, outputs_of, sample_states, state_of


def make(name: str, num_envs: int = 2, **given):
    return make_env(f"worldmodel/{name}-v0", num_envs=num_envs, vectorization="vector_entry_point", **given)


def test_chain_by_hand() -> None:
    right = Chains(1, length=6).right
    env = make("Chain", length=6, max_episode_steps=8)
    assert env.reset().tolist() == [1, 1] and env.info["place"].tolist() == [[-1], [-1]]
    state, rewards = 1, []
    for _ in range(7):  # copy 0 goes right, copy 1 left
        acts = [right[state], 1 - right[max(2 - len(rewards) - 1, 0)]]
        step = env.step(torch.tensor(acts))
        assert step.info["place"][0].item() == 2 * state + acts[0]
        state = min(state + 1, 5)
        assert step.obs[0].item() == step.info["state"][0] == state and step.obs[1].item() == 0
        rewards.append(step.rew.tolist())
    assert np.array(rewards)[:, 0].tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert np.array(rewards)[:, 1] == pytest.approx([0] + [0.001] * 6)
    assert env.step(torch.tensor([0, 0])).trunc.all()
    step = env.step(torch.tensor([0, 0]))
    assert step.ignored.all() and step.obs.tolist() == [1, 1] and (step.info["place"] == -1).all()


def test_chain_is_random_and_the_same_for_all() -> None:
    assert 15 < Chains(1).right.sum() < 35 and not np.array_equal(Chains(1).right, Chains(1, world=1).right)
    a, b = make("Chain", seed=1), make("Chain", seed=2)
    a.reset(), b.reset()
    for act in torch.randint(2, (59, 2), generator=torch.Generator().manual_seed(0)):
        x, y = a.step(act), b.step(act)
        assert torch.equal(x.obs, y.obs)
    assert x.trunc.all() and a.step(act).ignored.all()  # 50 + 9 steps


def test_trap() -> None:
    env = make("Chain", num_envs=400, length=3, trap=True)
    env.reset()
    left = torch.full((400,), int(1 - Chains(1, length=3).right[1]))
    assert not env.step(left).obs.any()
    assert env.step(left).obs.float().mean().item() == pytest.approx(0.5, abs=0.1)


def lorenz(state: np.ndarray) -> np.ndarray:
    x, y, z = np.moveaxis(state, -1, 0)
    return np.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], -1)


def test_published_lyapunov_exponents() -> None:
    saddle = lyapunov_exponent(lambda s: s * np.array([0.7, -1.0]), np.zeros((2, 2)), 0.01, 50, warm_up=100)
    assert saddle[0] == pytest.approx(0.7, abs=1e-6)
    start = rk4(lorenz, np.random.default_rng(0).normal([1, 1, 20], 1, (32, 3)), 0.01, 500)
    found, error = lyapunov_exponent(lorenz, start, 0.01, 400)
    assert found == pytest.approx(0.9056, abs=3 * error) and error < 0.02  # Sprott 2003


def test_rk4_is_of_fourth_order() -> None:
    def error(step: float) -> float:
        return abs(rk4(lambda s: s, np.ones(1), step, round(1 / step))[0] - np.e)

    assert error(0.1) / error(0.05) == pytest.approx(16, rel=0.1)


def test_pendulum_keeps_its_energy_and_swings_as_it_should() -> None:
    start = sample_states(np.random.default_rng(0), 200, 0.5)
    assert energy_of(start) == pytest.approx(0.5) and start.shape == (200, 4)
    assert energy_of(rk4(flow, start, 0.005, 400)) == pytest.approx(0.5, abs=1e-4)
    # small swings: angle 2 = sqrt(2) angle 1, with squared frequency (2 - sqrt 2) g / l
    turn = np.array([1.0, np.sqrt(2), 0, 0]) * 1e-3
    period = 2 * np.pi / np.sqrt((2 - np.sqrt(2)) * 9.81)
    assert rk4(flow, turn, period / 400, 400) == pytest.approx(turn, abs=1e-8)
    assert rk4(flow, turn, period / 400, 200) == pytest.approx(-turn, abs=1e-8)


def test_lyapunov_time_of_the_pendulum() -> None:
    time, error = Pendulums(1, energy=0.0).lyapunov_time(seconds=20, copies=32)
    assert time == pytest.approx(1.12, abs=0.25) and 0 < error < 0.2  # 1.13 +- .03 over 32 copies of 100 s


def test_scales_are_set_apart() -> None:
    fine, rough, few = (make("DoublePendulum", seed=7, **given) for given in ({}, {"resolution": 0.25}, {"dim": 2}))
    obs = [env.reset() for env in (fine, rough, few)]
    for _ in range(5):
        assert (obs[1] - obs[0]).abs().max() <= 0.125 + 1e-6 and torch.equal((obs[1] * 4).round(), obs[1] * 4)
        assert torch.equal(obs[2], obs[0][:, :2])
        steps = [env.step(torch.zeros(2, dtype=torch.long)) for env in (fine, rough, few)]
        assert all(np.array_equal(steps[0].info["state"], s.info["state"]) for s in steps)
        obs = [s.obs for s in steps]
    a, b = steps[0].info["state"][0, :2]
    assert obs[0][0, :4].numpy() == pytest.approx(
        [np.sin(a) + np.sin(b), -np.cos(a) - np.cos(b), np.sin(a), -np.cos(a)], abs=1e-6
    )
    coarse, exact = (make("DoublePendulum", seed=7, step=s) for s in (0.025, 0.001))
    coarse.reset(), exact.reset()
    assert np.array_equal(coarse.info["state"], exact.info["state"])
    gaps = []
    for _ in range(60):
        pair = [env.step(torch.zeros(2, dtype=torch.long)).info["state"] for env in (coarse, exact)]
        gaps.append(np.abs(np.sin(pair[0] - pair[1])).max())
    assert gaps[0] < 1e-3 < gaps[-1]  # they come apart


def test_six_numbers_determine_a_state() -> None:
    state = sample_states(np.random.default_rng(0), 50, 1.0)
    np.testing.assert_allclose(state_of(outputs_of(state)), state, atol=1e-12)
    np.testing.assert_allclose(outputs_of(np.array([np.pi / 2, 0.0, 3.0, 4.0])), [1, -1, 1, 0, 3, 4], atol=1e-12)


def test_torque_and_episodes() -> None:
    env = make("DoublePendulum", torque=5.0, max_episode_steps=3, num_envs=3)
    assert env.act_space == gym.spaces.Discrete(3) and make("DoublePendulum").act_space.n == 1
    env.reset()
    before = energy_of(env.info["state"])
    steps = [env.step(torch.tensor([0, 1, 2])) for _ in range(4)]
    after = energy_of(steps[0].info["state"])
    assert before == pytest.approx(0.0) and after[0] == pytest.approx(0.0, abs=1e-5) and (abs(after[1:]) > 1e-3).all()
    assert steps[2].trunc.all() and steps[3].ignored.all()
    assert energy_of(steps[3].info["state"]) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("Chain", {"length": 1}, "env.kwargs.length=1: allowed"),
        (
            "DoublePendulum",
            {"interval": 0.012},
            r"env.kwargs.interval=0.012: allowed are whole multiples of env.kwargs.step=0.005",
        ),
        ("DoublePendulum", {"dim": 7}, "env.kwargs.dim=7: allowed are whole numbers from 1 to 6"),
        ("DoublePendulum", {"resolution": -1}, "env.kwargs.resolution=-1: allowed"),
        ("DoublePendulum", {"energy": -3}, "env.kwargs.energy=-3: allowed"),
    ],
)
def test_bad_input(name: str, given: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make(name, **given)


def test_transitions_of_the_chain_are_what_is_covered(cli, tmp_path) -> None:
    given = [
        "experiment=chain",
        "env.kwargs.length=3",
        "env.kwargs.max_episode_steps=7",
        f"run_dir={tmp_path}/run",
    ]
    assert cli(*given, "total_steps=160").code == 0
    header, *rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    covered = [float(row.split(",")[header.split(",").index("coverage")]) for row in rows]
    assert covered[0] >= 3 and covered[-1] == 6 and covered == sorted(covered)
