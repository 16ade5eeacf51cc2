"""The project's own worlds follow the rules of Gymnasium and of Stable-Baselines3."""

from __future__ import annotations

import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import worldmodel.envs.worlds  # noqa: F401  (registers the ids)
from worldmodel.envs.worlds.pendulum import Pendulums

IDS = sorted(id for id in gym.registry if id.startswith("worldmodel/"))


@pytest.fixture
def strict(monkeypatch):
    """Warnings are errors, and MiniGrid's window needs no screen."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("id", IDS)
def test_gymnasium(id: str, strict) -> None:
    if "Crafter" in id:
        pytest.importorskip("crafter")
    check_env(gym.make(id, disable_env_checker=True).unwrapped)


@pytest.mark.parametrize("id", IDS)
def test_stable_baselines(id: str, strict) -> None:
    sb3 = pytest.importorskip("stable_baselines3.common.env_checker")
    if "Crafter" in id:
        pytest.importorskip("crafter")
    # advice for its default policy, which does not take MiniGrid's view of 7 x 7 cells
    warnings.filterwarnings("ignore", message="The minimal resolution for an image")
    sb3.check_env(gym.make(id))


@pytest.mark.parametrize("id", ["worldmodel/Mess3-v0", "worldmodel/Chain-v0", "worldmodel/DoublePendulum-v0"])
def test_a_world_draws_from_its_generator(id: str) -> None:
    """Setting `np_random` sets the future, as in any environment of Gymnasium."""
    kwargs = {"trap": True, "length": 2} if "Chain" in id else {}
    one, two = (gym.make(id, disable_env_checker=True, **kwargs).unwrapped for _ in range(2))
    for env, seed in ((one, 1), (two, 2)):
        env.reset(seed=seed)
    two.np_random.bit_generator.state = one.np_random.bit_generator.state
    for env in (one, two):
        env.reset()
    steps = [[np.asarray(env.step(0)[0]).tolist() for _ in range(30)] for env in (one, two)]
    assert steps[0] == steps[1] and len(np.unique(steps[0])) > 1


@pytest.mark.parametrize(("energy", "torque"), [(-2.0, 0.0), (0.0, 0.0), (5.0, 0.0), (0.0, 5.0)])
def test_bounds_of_the_pendulum(energy: float, torque: float) -> None:
    """No motion reaches the bounds, and without torque they are at most twice as wide as the fastest one."""
    world = Pendulums(500, energy=energy, torque=torque, max_episode_steps=10**6)
    high = world.single_observation_space.high
    world.reset(seed=0)
    most = np.zeros(6)
    for _ in range(200):
        obs, *_, info = world.step(np.full(500, 1 if torque else 0))
        most = np.maximum(most, np.abs(obs).max(0))
        np.testing.assert_allclose(obs[:, 4:], info["state"][:, 2:], rtol=1e-6)  # not clipped
    assert (most <= high).all() and np.isfinite(high).all() and (world.single_observation_space.low == -high).all()
    assert torque or (most[4:] > high[4:] / 2).all()


def test_velocities_beyond_the_bounds_are_shown_as_the_bounds() -> None:
    world = Pendulums(1, resolution=0.5)
    world.reset(seed=0)
    world._state[:] = [0.0, 0.0, 1e6, -1e6]
    high = world.single_observation_space.high
    assert np.array_equal(world._observe()[0, 4:], [high[4], -high[5]])
