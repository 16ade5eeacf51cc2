"""MiniGrid's Memory with a random initial direction."""

from __future__ import annotations

import numpy as np

from worldmodel.envs import make_env
from worldmodel.envs.worlds.facing import MemoryFacingAnywhere

KEY, BALL = 5, 6


def test_starts_look_in_four_directions_and_a_quarter_of_them_are_minigrids_own() -> None:
    env = MemoryFacingAnywhere()
    directions, shown = [], []
    for seed in range(200):
        obs, _ = env.reset(seed=seed)
        directions.append(env.agent_dir)
        shown.append(np.isin(obs["image"][..., 0], (KEY, BALL)).sum())
        assert obs["direction"] == env.agent_dir and (env.width, env.max_steps) == (11, 5 * 11**2)
        assert env.agent_pos[1] == 5 and 1 <= env.agent_pos[0] <= 8
        again, _ = env.reset(seed=seed)
        np.testing.assert_array_equal(again["image"], obs["image"])
    assert all(30 < directions.count(d) < 70 for d in range(4))
    back = np.array([count for count, way in zip(shown, directions, strict=True) if way == 2])
    assert back.max() == 1 and back.mean() > 0.7, "who looks back sees the object from nearly all of the corridor"


def test_by_its_id_in_the_experiment() -> None:
    env = make_env("worldmodel/MemoryFacingAnywhere-v0", num_envs=2, seed=0, keys=["image"])
    assert env.reset().shape == (2, 7, 7, 3)
    env.close()
