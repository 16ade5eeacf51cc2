"""Noisy TV: when it is on, its content, and its share of actions and rewards."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from helpers.rollouts import hand_made
from helpers.runs import TIMED
from helpers.tiny import EASY, tiny_agent

from worldmodel.envs import make_env
from worldmodel.envs.metrics import TVShare
from worldmodel.envs.wrappers.screen import Screen
from worldmodel.training.checkpoint import read_checkpoint
from worldmodel.types import ScoredRollout, first_leaf

GRID = "MiniGrid-Empty-5x5-v0"
ENGINES = ["envpool", "gymnasium"]


def tv(kind: str, engine: str = "envpool", id: str = GRID, **given):
    common = {"num_envs": 3, "null_action": 6, "keys": ["image"], "tv_values": [11, 6, 3]}
    if id != GRID:
        common = {"num_envs": 3}
    return make_env(id, engine, tv=kind, **(common | given))


def twins(kind: str, engine: str = "envpool", **given):
    """The environment with and without a TV, after their reset."""
    pair = tv(kind, engine, **given), tv("clean", engine, **{k: v for k, v in given.items() if k[:2] != "tv"})
    return *pair, pair[0].reset(), pair[1].reset()


@pytest.mark.parametrize("engine", ENGINES)
def test_action(engine: str) -> None:
    env, clean, *obs = twins("action", engine)
    assert env.act_space == gym.spaces.Discrete(8) and torch.equal(*obs)
    assert not env.info["tv_on"].any() and not env.info["tv_act"].any()
    # copy 0 watches, copy 1 walks, copy 2 turns
    for acts in ([7, 2, 1], [2, 2, 7], [7, 7, 7]):
        act = torch.tensor(acts)
        step, other = env.step(act), clean.step(torch.where(act == 7, 6, act))
        watched = act == 7
        assert step.info["tv_on"].tolist() == step.info["tv_act"].tolist() == watched.tolist()
        assert torch.equal(step.obs[~watched], other.obs[~watched])
        assert all(not torch.equal(a, b) for a, b in zip(step.obs[watched], other.obs[watched], strict=True))
        assert np.array_equal(step.info["agent_pos"], other.info["agent_pos"])


@pytest.mark.parametrize("engine", ENGINES)
def test_sham_changes_nothing(engine: str) -> None:
    env, clean, *obs = twins("sham", engine)
    assert env.act_space.n == 8 and torch.equal(*obs)
    for act in torch.randint(8, (20, 3), generator=torch.Generator().manual_seed(0)):
        step, other = env.step(act), clean.step(torch.where(act == 7, 6, act))
        assert torch.equal(step.obs, other.obs) and torch.equal(step.rew, other.rew)
        assert not step.info["tv_on"].any() and step.info["tv_act"].tolist() == (act == 7).tolist()


def test_the_button_may_be_an_action_of_the_environment() -> None:
    env, clean, *_ = twins("action", tv_action=2)
    assert env.act_space.n == 7
    step, other = env.step(torch.tensor([2, 2, 0])), clean.step(torch.tensor([2, 2, 0]))
    assert step.info["tv_on"].tolist() == [True, True, False]
    assert np.array_equal(step.info["agent_pos"], other.info["agent_pos"])
    noop = tv("action", tv_action="noop")
    noop.reset()
    assert noop.act_space.n == 7 and noop.step(torch.tensor([6, 0, 6])).info["tv_on"].tolist() == [True, False, True]


def test_an_ignored_action_is_not_the_tvs() -> None:
    env = tv("action", max_episode_steps=2)
    env.reset()
    steps = [env.step(torch.full((3,), 7)) for _ in range(4)]
    assert [s.info["tv_act"].all() for s in steps] == [True, True, False, True]
    assert steps[2].ignored.all() and not steps[2].info["tv_on"].any()


def test_iid() -> None:
    env, clean, obs, other = twins("iid", tv_size=0.5)
    seen = [obs]
    for _ in range(200):
        step, plain = env.step(torch.full((3,), 6)), clean.step(torch.full((3,), 6))
        assert torch.equal(step.obs[:, :3], plain.obs[:, :3]) and torch.equal(step.obs[:, :, :3], plain.obs[:, :, :3])
        assert step.info["tv_on"].all() and not step.info["tv_act"].any()
        seen.append(step.obs)
    assert env.info["tv_on"].all() and not torch.equal(obs, other)
    noise = torch.stack(seen)[:, :, 3:, 3:]
    assert env.act_space.n == 7
    for channel, count in enumerate((11, 6, 3)):  # every valid value, equally often
        shares = torch.bincount(noise[..., channel].flatten().long()) / noise[..., channel].numel()
        assert len(shares) == count and shares.numpy() == pytest.approx(1 / count, abs=0.02)
    assert not torch.equal(noise[0], noise[1]) and not torch.equal(noise[0, 0], noise[0, 1])


def test_brownian() -> None:
    env = tv("brownian", id="Pong-v5", tv_size=0.25)
    clean = make_env("Pong-v5", "envpool", 3)
    obs, other = env.reset(), clean.reset()
    corners = []
    for _ in range(30):
        corners.append(env._corners[""].copy())
        for i, (y, x) in enumerate(corners[-1]):
            patch = obs[i, :, y : y + 21, x : x + 21]
            assert torch.equal(patch, env._patches[""][i])  # the content never changes
            rest = obs[i].clone()
            rest[:, y : y + 21, x : x + 21] = other[i, :, y : y + 21, x : x + 21]
            assert torch.equal(rest, other[i])
        act = torch.zeros(3, dtype=torch.long)
        step = env.step(act)
        obs, other = step.obs, clean.step(act).obs
        assert step.info["tv_on"].all()
    moves = np.diff(np.array(corners), axis=0)
    assert set(np.unique(moves)) == {-1, 0, 1} and np.array(corners).min() >= 0 and np.array(corners).max() <= 63


def test_other_observations() -> None:
    generator = np.random.default_rng(0)
    unbounded = Screen(gym.spaces.Box(-np.inf, np.inf, (4,)), 0.5)
    drawn, obs = unbounded.draw(generator, 4000), torch.zeros(4000, 4)
    assert drawn.dtype == torch.float32 and drawn.std() == pytest.approx(1.0, abs=0.05)
    unbounded.show(obs, torch.arange(3), drawn[:3])
    assert torch.equal(obs[:3, 2:], drawn[:3]) and not obs[:, :2].any() and not obs[3:].any()
    low, high = np.array([0, 2], np.float32), np.array([1, 3], np.float32)
    bounded = Screen(gym.spaces.Box(low, high), 1.0).draw(generator, 1000)
    assert (bounded.min(0).values.numpy() >= low).all() and (bounded.max(0).values.numpy() <= high).all()
    assert Screen(gym.spaces.Discrete(3), 1.0).draw(generator, 200).unique().tolist() == [0, 1, 2]
    many = Screen(gym.spaces.MultiDiscrete([2, 5]), 1.0).draw(generator, 200)
    assert many.max(0).values.tolist() == [1, 4]
    lake = make_env("FrozenLake-v1", num_envs=50, tv="action", null_action=0)
    lake.reset()
    assert len(lake.step(torch.full((50,), 4)).obs.unique()) > 8
    image = Screen(gym.spaces.Box(0, 255, (4, 84, 84), np.uint8), 0.25)
    assert image.part == [21, 21] and image.draw(generator, 2).shape == (2, 4, 21, 21)


def test_of_a_dict_only_the_view_is_noisy() -> None:
    env, clean, *_ = twins("iid", keys=["image", "direction"])
    step, other = (e.step(torch.tensor([0, 1, 6])) for e in (env, clean))
    assert torch.equal(step.obs["direction"], other.obs["direction"])
    assert not torch.equal(step.obs["image"], other.obs["image"])


@pytest.mark.parametrize("kind", ["iid", "brownian", "action"])
def test_seeds_and_state(kind: str) -> None:
    size = {"tv_size": 0.4, "sticky": 0.3}
    env, same, other = (tv(kind, "gymnasium", seed=s, **size) for s in (1, 1, 2))
    obs = [first_leaf(e.reset()) for e in (env, same, other)]
    assert torch.equal(obs[0], obs[1]) and (kind == "action" or not torch.equal(obs[0], obs[2]))
    state = env.state_dict()
    other.load_state_dict(state)
    acts = torch.randint(env.act_space.n, (30, 3), generator=torch.Generator().manual_seed(0))
    for act in acts:
        steps = [e.step(act) for e in (env, same, other)]
        assert all(torch.equal(steps[0].obs, s.obs) for s in steps[1:]) and env.resumable


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tv": "loud"}, "env.tv=loud: allowed are clean, iid, brownian, action, sham"),
        ({"tv": "action", "null_action": None}, "env.tv_action=added: needs env.null_action"),
        ({"tv": "action", "tv_action": 7}, "env.tv_action=7: allowed are added, noop and 0..6"),
        ({"tv": "iid", "tv_size": 0}, "env.tv_size=0: allowed are numbers above 0 to 1"),
        ({"tv": "brownian"}, "env.tv=brownian env.tv_size=1.0: allowed are views with room"),
        ({"tv": "iid", "tv_values": [3]}, r"env.tv_values=\[3\]: allowed for Box.* is null or one count"),
    ],
)
def test_bad_input(given: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_env(GRID, **({"num_envs": 2, "keys": ["image"], "null_action": 6} | given))


def test_continuous_actions_have_no_button() -> None:
    with pytest.raises(ValueError, match=r"env.tv=action: .*Box.*are clean, iid and brownian"):
        make_env("HalfCheetah-v5", num_envs=2, tv="action")
    assert make_env("HalfCheetah-v5", num_envs=2, tv="iid", tv_size=0.5).reset().shape == (2, 17)


def test_shares_by_hand() -> None:
    metric = TVShare()
    roll = hand_made(
        ScoredRollout,
        mask=torch.tensor([[True, True, False, True, False]]),
        rew_int=torch.tensor([[3.0, 1.0, 9.0, -5.0]]),
        info={"tv_on": torch.tensor([[1, 0, 1, 1, 0]]).bool(), "tv_act": torch.tensor([[0, 0, 1, 1, 0]]).bool()},
    )
    metric.add(roll)  # of 3 real transitions the second is the TV's; it earns 1 of 4
    assert metric.summary() == {"tv_action_share": pytest.approx(1 / 3), "tv_rew_int_share": pytest.approx(1 / 4)}
    roll.info = {}
    without = TVShare()
    without.add(roll)
    assert without.summary() == {}


def test_metrics_of_a_run(cli, tmp_path) -> None:
    given = ["env.tv=action", "curiosity=error", "total_steps=96", f"run_dir={tmp_path}/run", *EASY]
    ended = cli(*given)
    assert ended.code == 0, ended.err
    header, *rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    names = header.split(",")
    shares = np.array([[float(row.split(",")[names.index(k)]) for row in rows] for k in ("tv_action_share",
        "tv_rew_int_share", "coverage", "coverage_auc")])  # fmt: skip
    assert ((shares[:2] >= 0) & (shares[:2] <= 1)).all() and 0 < shares[0].mean() < 0.6
    assert (np.diff(shares[2:]) >= 0).all() and (shares[3] <= shares[2]).all() and 1 <= shares[2, -1] <= 9


def test_the_added_action_is_one_more_for_the_agent() -> None:
    _, stream, _ = tiny_agent("env.tv=action", *EASY)
    assert stream.env.act_space.n == 8
    roll = stream.collector.collect()
    assert (roll.info["tv_act"][:, 1:] == ((roll.new_steps(roll.act) == 7) & roll.new_steps(roll.mask))).all()


@pytest.mark.parametrize(
    "overrides",
    [
        ["experiment=tiger", "env.tv=action", "env.kwargs.max_episode_steps=9"],
        [
            "env=doorkey_levels",
            "env.tv=brownian",
            "env.tv_size=0.4",
            "+env.kwargs.max_episode_steps=9",
            "env.sticky=0.2",
        ],
    ],
    ids=["our own world", "a room"],
)
def test_an_interrupted_run_continues_bit_for_bit(cli, tmp_path, overrides: list[str]) -> None:
    """Including the environments, their TV, their info and the metrics."""
    tables, states = [], []
    for run, stops in (("whole", [128]), ("halves", [64, 128])):
        for steps in stops:
            given = ["data.keep_envs=true", f"total_steps={steps}", f"run_dir={tmp_path / run}", "checkpoint=auto"]
            ended = cli(*given, *overrides) if steps == stops[0] else cli(*given, tiny=[])
            assert ended.code == 0, ended.err
        header, *rows = (tmp_path / run / "metrics.csv").read_text().splitlines()
        names = header.split(",")
        kept = [i for i, name in enumerate(names) if name not in TIMED]
        tables.append([[row.split(",")[i] for i in kept] for row in rows])
        states.append(read_checkpoint(tmp_path / run / "checkpoints" / "last.ckpt"))
        assert "tv_action_share" in names
    assert tables[0] == tables[1] and len(tables[0]) == 5
    for part in ("collector", "metrics"):
        one, two = (state["SequenceData"][part] for state in states)
        torch.testing.assert_close(one, two, rtol=0, atol=0, equal_nan=True, msg=str)
