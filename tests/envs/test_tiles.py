"""MiniGrid's view as pixels from its symbols, against MiniGrid's own drawing."""

from __future__ import annotations

import warnings

import gymnasium as gym
import minigrid  # noqa: F401
import numpy as np
import pytest
import torch
from minigrid.core.world_object import Ball, Box, Key
from minigrid.wrappers import RGBImgPartialObsWrapper

from worldmodel.envs import make_env
from worldmodel.envs.wrappers.tiles import SIZES, Tiles, tiles
from worldmodel.errors import ConfigError

FAMILIES = sorted(
    {
        name.split("-")[0] + "-" + name.split("-")[1]: name
        for name in gym.registry
        if name.startswith(("MiniGrid-", "BabyAI-")) and "-WFC-" not in name  # its patterns are not in the package
    }.values()
)


class Symbols:
    """Stands for a vector environment with MiniGrid's view."""

    def __init__(self, side: int):
        self.num_envs, self.act_space, self.null_action, self.time_limit, self.resumable = 1, None, None, None, True
        self.obs_space = gym.spaces.Box(0, 255, (side, side, 3), np.uint8)


def drawn(env: gym.Env, size: int) -> np.ndarray:
    """The picture of the present view, by the table."""
    view = env.unwrapped.gen_obs()["image"]
    return Tiles(Symbols(len(view)), size).pixels(torch.from_numpy(view)[None])[0].numpy()


@pytest.mark.parametrize("size", [8, 5])
def test_every_family_is_drawn_as_minigrid_draws_it(size: int) -> None:
    rng, steps = np.random.default_rng(0), 0
    for name in FAMILIES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            env = RGBImgPartialObsWrapper(gym.make(name, disable_env_checker=True), tile_size=size)
        obs, _ = env.reset(seed=0)
        for _ in range(12):
            assert np.array_equal(drawn(env, size), obs["image"]), name
            obs, _, end, trunc, _ = env.step(int(rng.integers(env.action_space.n)))
            steps += 1
            if end or trunc:
                obs, _ = env.reset()
        env.close()
    assert len(FAMILIES) > 60 and steps == 12 * len(FAMILIES)


def test_carried_objects_and_wider_views() -> None:
    env = RGBImgPartialObsWrapper(gym.make("MiniGrid-DoorKey-8x8-v0", agent_view_size=9), tile_size=8)
    env.reset(seed=1)
    for thing in (Key("yellow"), Ball("purple"), Box("red"), None):
        env.unwrapped.carrying = thing
        seen = env.observation(env.unwrapped.gen_obs())["image"]
        assert seen.shape == (72, 72, 3) and np.array_equal(drawn(env, 8), seen)


@pytest.mark.parametrize("engine", ["envpool", "gymnasium"])
def test_the_environment_shows_pixels(engine: str) -> None:
    make = {"num_envs": 3, "engine": engine, "keys": ["image"], "seed": 3}
    plain, pixels = (make_env("MiniGrid-DoorKey-8x8-v0", rooms=True, pixels=p, **make) for p in (False, True))
    table, known = tiles(8)
    assert pixels.obs_space == gym.spaces.Box(0, 255, (56, 56, 3), np.uint8)
    symbols, image = plain.reset(), pixels.reset()
    for k in range(60):
        index = (symbols[..., 0].long() * SIZES[1] + symbols[..., 1]) * SIZES[2] + symbols[..., 2]
        assert known[index].all()
        corner = table.reshape(-1, 8, 8, 3)[index[0, 0, 0]]
        assert np.array_equal(image[0, :8, :8].numpy(), corner) and image.dtype == torch.uint8
        act = torch.full((3,), k % 7)
        one, other = plain.step(act), pixels.step(act)
        assert torch.equal(one.rew, other.rew) and (one.info["room"] == other.info["room"]).all()
        symbols, image = one.obs, other.obs
    plain.close()
    pixels.close()


def test_dictionaries_and_the_noisy_tv() -> None:
    env = make_env("MiniGrid-DoorKey-5x5-v0", num_envs=2, keys=["image", "direction"], pixels=True, tile_size=4)
    assert env.reset()["image"].shape == (2, 28, 28, 3) and env.obs_space["direction"].n == 4
    env.close()
    env = make_env("MiniGrid-Empty-5x5-v0", num_envs=2, keys=["image"], pixels=True, tv="iid", tv_values=[11, 6, 3])
    obs = env.reset()
    assert obs.shape == (2, 56, 56, 3) and obs.float().std() > 60  # any colours
    env.close()


def test_one_line_for_what_cannot_be_drawn() -> None:
    with pytest.raises(ConfigError, match=r"env.pixels=True: allowed for observations with a view of MiniGrid, not"):
        make_env("CartPole-v1", num_envs=1, pixels=True)
    with pytest.raises(ValueError, match=r"env.tile_size=1: allowed"):
        make_env("MiniGrid-Empty-5x5-v0", num_envs=1, keys=["image"], pixels=True, tile_size=1)
    wrong = torch.zeros(1, 7, 7, 3, dtype=torch.uint8)
    wrong[0, 2, 3] = torch.tensor([4, 1, 3])
    with pytest.raises(ConfigError, match=r"env.pixels=True: MiniGrid has no cell with the symbols \[4, 1, 3\]"):
        Tiles(Symbols(7)).pixels(wrong)
