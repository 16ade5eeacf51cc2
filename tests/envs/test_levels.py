"""Fixed levels: a few rooms that repeat, and held-out rooms that do not occur in training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from worldmodel.envs import make_env

ID = "MiniGrid-MultiRoom-N2-S4-v0"


def rooms(num: int = 120, **given) -> tuple[set[int], set[bytes]]:
    """The levels and the first observations of some episodes."""
    env = make_env(ID, "gymnasium", 4, keys=["image"], max_episode_steps=1, **given)
    obs = env.reset()
    levels, views = list(env.info["level"]), [o.numpy().tobytes() for o in obs]
    for _ in range(num // 2):
        step = env.step(torch.zeros(4, dtype=torch.long))
        if step.ignored.all():
            levels += list(step.info["level"])
            views += [o.numpy().tobytes() for o in step.obs]
    pairs = set(zip(levels, views, strict=True))
    assert len(pairs) == len(set(levels))  # a level is always the same room
    return {int(x) for x in levels}, set(views)


def test_seen_and_held_out() -> None:
    seen, views = rooms(levels=8)
    assert seen == set(range(8)) and len(views) <= 8
    assert rooms(levels=8, seed=5)[0] == seen and rooms(levels=8, seed=5)[1] == views  # whatever the seed
    unseen, others = rooms(num=40, levels=8, held_out=True)
    assert min(unseen) >= 8 and len(unseen) > 40 and len(others) > 8


def test_seeds_decide_the_order() -> None:
    def order(seed: int) -> np.ndarray:
        env = make_env(ID, "gymnasium", 16, seed, levels=1000)
        env.reset()
        return env.info["level"]

    assert np.array_equal(order(3), order(3)) and not np.array_equal(order(3), order(4))


def test_state() -> None:
    a, b = (make_env(ID, "gymnasium", 2, seed, ["image"], levels=50, max_episode_steps=2) for seed in (0, 1))
    a.record(), b.record()
    a.reset(), b.reset()
    b.load_state_dict(a.state_dict())
    for _ in range(9):
        x, y = (env.step(torch.zeros(2, dtype=torch.long)) for env in (a, b))
        assert torch.equal(x.obs, y.obs) and np.array_equal(x.info["level"], y.info["level"])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"levels": 5, "id": "MiniGrid-Empty-5x5-v0"},
            "env.levels=5: envpool has no fixed levels, allowed with env.engine=gymnasium"),
        ({"levels": 0, "engine": "gymnasium"}, "env.levels=0: allowed are null and whole numbers from 1"),
        ({"held_out": True}, "env.held_out=True: needs env.levels"),
        ({"id": "worldmodel/Chain-v0", "levels": 2, "vectorization": "vector_entry_point"},
            "env.levels=2: allowed with env.vectorization=vector_entry_point is null"),
    ],
)  # fmt: skip
def test_bad_input(given: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_env(**({"id": ID, "num_envs": 2} | given))
