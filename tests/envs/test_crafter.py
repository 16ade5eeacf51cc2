"""Crafter and the statistics of its achievements."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.rollouts import hand_made

from worldmodel.envs import make_env
from worldmodel.envs.metrics import Achievements


def test_achievements_by_hand() -> None:
    metric = Achievements()
    assert metric.summary() == {}
    no = torch.zeros(2, 4, dtype=torch.bool)
    wood = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 1]]).bool()  # beside the observation that closes a transition
    info = {"achievement_wood": wood, "achievement_table": no, "agent_pos": no}
    metric.add(hand_made(end=no, info=info))
    assert np.isnan(metric.summary()["achievements"]) and set(metric.summary()) > {"achievement_wood"}
    end, trunc = no.clone(), no.clone()
    end[0, 1] = trunc[1, 1] = trunc[1, 2] = True
    metric.add(hand_made(end=end, trunc=trunc, info=info))
    other = Achievements()
    other.load_state_dict(metric.state_dict(), running=False)
    found = other.summary()  # three episodes ended, two of them with wood
    assert found["achievement_wood"] == pytest.approx(2 / 3) and found["achievement_table"] == 0
    assert found["achievements"] == pytest.approx(2 / 3)
    assert found["achievement_score"] == pytest.approx((1 + 200 / 3) ** 0.5 - 1)


def test_world() -> None:
    pytest.importorskip("crafter")
    envs = [make_env("worldmodel/Crafter-v0", num_envs=2, seed=s, place=["agent_pos"]) for s in (3, 3, 4)]
    obs = [env.reset() for env in envs]
    assert obs[0].shape == (2, 64, 64, 3) and obs[0].dtype == torch.uint8 and envs[0].act_space.n == 17
    assert torch.equal(obs[0], obs[1]) and not torch.equal(obs[0], obs[2]) and not torch.equal(*obs[0])
    assert envs[0].info["place"].tolist() == [[32, 32], [32, 32]]
    names = [k for k in envs[0].info if k.startswith("achievement_")]
    assert len(names) == 22 and not any(envs[0].info[k].any() for k in names)
    for _ in range(30):
        steps = [env.step(torch.tensor([1, 6])) for env in envs[:2]]  # left, sleep
        assert torch.equal(steps[0].obs, steps[1].obs)
    assert steps[0].info["place"][0, 0] < 32 and steps[0].info["place"][1].tolist() == [32, 32]
    short = make_env("worldmodel/Crafter-v0", num_envs=1, max_episode_steps=2, reward=False, levels=3)
    first = short.reset()
    steps = [short.step(torch.tensor([0])) for _ in range(3)]
    assert steps[1].trunc.all() and not steps[1].end.any() and steps[2].ignored.all() and first.any()


def test_experiment_runs(cli, tmp_path) -> None:
    pytest.importorskip("crafter")
    given = [
        "experiment=crafter",
        "env.vectorization=sync",
        "+env.kwargs.max_episode_steps=5",
        f"run_dir={tmp_path}/run",
    ]
    ended = cli(*given, "total_steps=64", "encoder.layers=[[4,8,8]]")
    assert ended.code == 0, ended.err
    header, *rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    values = dict(zip(header.split(","), rows[-1].split(","), strict=True))
    assert sum(k.startswith("achievement_") for k in values) == 23 and 0 <= float(values["achievement_score"]) <= 100
    assert float(values["coverage"]) >= 1
