"""Environments: equal observations, rewards, ends and resets in every engine."""

import io
import os

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Text

from worldmodel.envs import make_env
from worldmodel.envs.spaces import Translation
from worldmodel.types import map_obs

FAMILIES = ["MiniGrid-DoorKey-5x5-v0", "CartPole-v1", "Pong-v5", "HalfCheetah-v5", "FrozenLake-v1"]
CUSTOM = "vector_entry_point"


class Count(gym.Env):
    """Observes (episode, step, last action, OMP_NUM_THREADS); ends after `length` steps; each step pays 1."""

    action_space = Discrete(1000)

    def __init__(self, length: int = 3, trunc: bool = False):
        self.length, self.trunc, self.episode = length, trunc, -1
        self.observation_space = Box(-np.inf, np.inf, (4,), np.float64)

    def observe(self, act):
        return np.array([self.episode, self.t, act, int(os.environ.get("OMP_NUM_THREADS", 0))], float)

    def reset(self, *, seed=None, options=None):
        self.episode, self.t = self.episode + 1, 0
        return self.observe(-1), {"t": 0}

    def step(self, act):
        self.t += 1
        over = self.t == self.length
        return self.observe(act), 1.0, over and not self.trunc, over and self.trunc, {"t": self.t}


class DictCount(Count):
    """The same numbers in a dict."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.observation_space = Dict({"a": self.observation_space, "b": Discrete(9, start=1), "c": Text(3)})

    def observe(self, act):
        return {"a": super().observe(act), "b": self.t + 1, "c": "abc"}


class Forgetful(gym.vector.VectorWrapper):
    """An environment that returns no final observations."""

    def step(self, actions):
        *rest, info = self.env.step(actions)
        return *rest, {k: v for k, v in info.items() if not k.startswith("final")}


def same_step(num_envs, max_episode_steps=None, final=True, entry=Count, **kwargs):
    mode = gym.vector.AutoresetMode.SAME_STEP
    venv = gym.vector.SyncVectorEnv([lambda: entry(**kwargs)] * num_envs, autoreset_mode=mode)
    return venv if final else Forgetful(venv)


gym.register("Count-v0", entry_point=Count, vector_entry_point=same_step)
gym.register("DictCount-v0", entry_point=DictCount)
gym.register("Ez-v0", entry_point=type("Ez", (Count, gym.utils.EzPickle), {}))


def run(env, actions, start=True):
    """The observations, from that of the reset on, and the steps."""
    obs = [env.reset()] if start else []
    steps = [env.step(torch.as_tensor(a)) for a in actions]
    return obs + [s.obs for s in steps], steps


def random_actions(env, length, seed=0):
    env.act_space.seed(seed)
    return [np.stack([env.act_space.sample() for _ in range(env.num_envs)]) for _ in range(length)]


def equal(a, b):
    leaves = []
    map_obs(lambda x, y: leaves.append(torch.equal(x, y)), a, b)
    return all(leaves)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("trunc", [False, True])
def test_rows_next_step(vectorization, trunc):
    env = make_env("Count-v0", num_envs=2, trunc=trunc, vectorization=vectorization)
    obs, steps = run(env, [[5, 6]] * 7)
    assert [o[0, :2].tolist() for o in obs[:4]] == [[0, 0], [0, 1], [0, 2], [0, 3]]
    assert [o[0, :2].tolist() for o in obs[4:]] == [[1, 0], [1, 1], [1, 2], [1, 3]]
    assert [s.rew[0].item() for s in steps] == [1, 1, 1, 0, 1, 1, 1]
    assert [s.ignored[0].item() for s in steps] == [0, 0, 0, 1, 0, 0, 0]
    assert [(s.trunc if trunc else s.end)[0].item() for s in steps] == [0, 0, 1, 0, 0, 0, 1]
    assert not any((s.end if trunc else s.trunc).any() for s in steps)
    assert [s.info["t"].tolist() for s in steps[:4]] == [[1, 1], [2, 2], [3, 3], [0, 0]]
    assert obs[1][:, 2].tolist() == [5, 6]
    assert not run(env, [[5, 6]])[1][0].ignored.any()  # a reset after an end leaves nothing to ignore
    env.close()


@pytest.mark.parametrize("null", [None, 7])
def test_rows_same_step(null):
    env = make_env("Count-v0", num_envs=2, vectorization=CUSTOM, null_action=null)
    obs, steps = run(env, [[5, 6]] * 7)
    assert [o[0, :2].tolist() for o in obs[:4]] == [[0, 0], [0, 1], [0, 2], [0, 3]]
    assert [o[0, :2].tolist() for o in obs[4:]] == [[1, 1], [1, 2], [1, 3], [2, 1]]
    assert [o[1, 2].item() for o in obs] == [-1, 6, 6, 6, null or 0, 6, 6, null or 0]
    assert [s.rew[1].item() for s in steps] == [1, 1, 1, 0, 1, 1, 0]
    assert [s.ignored[1].item() for s in steps] == [0, 0, 0, 1, 0, 0, 1]
    assert [s.end[1].item() for s in steps] == [0, 0, 1, 0, 0, 1, 0]
    assert [s.info["t"][0] for s in steps] == [1, 2, 3, 1, 2, 3, 1]


def test_same_step_corners():
    """The null action ends an episode; observations are dicts; there is no final observation."""
    obs, steps = run(make_env("Count-v0", num_envs=1, length=1, vectorization=CUSTOM), [[5]] * 4)
    assert [o[0, :2].tolist() for o in obs] == [[0, 0], [0, 1], [2, 0], [2, 1], [4, 0]]
    assert [s.rew.item() for s in steps] == [1, 0, 1, 0] == [s.end.item() for s in steps]
    env = make_env("Count-v0", num_envs=2, vectorization=CUSTOM, entry=DictCount, length=2)
    obs, _ = run(env, [[5, 6]] * 3)
    assert [o["a"][1, :2].tolist() for o in obs] == [[0, 0], [0, 1], [0, 2], [1, 1]]
    assert [o["b"][1].item() for o in obs] == [0, 1, 2, 1]
    with pytest.raises(ValueError, match=r"gives no info\['final_obs'\]"):
        run(make_env("Count-v0", num_envs=2, vectorization=CUSTOM, final=False), [[5, 6]] * 3)


@pytest.mark.parametrize("id", FAMILIES[:4])
def test_envpool_shows_the_terminal_observation(id):
    """A twin with a later limit agrees up to and with the truncated step; the one after that is a reset."""
    short, long = (make_env(id, "envpool", 2, seed=4, max_episode_steps=limit) for limit in (5, 50))
    actions = random_actions(short, 7, seed=1)
    (a, steps), (b, _) = run(short, actions), run(long, actions)
    assert all(equal(x, y) for x, y in zip(a[:6], b[:6], strict=True)) and not equal(a[6], b[6])
    assert [s.trunc.tolist() for s in steps] == [[t == 4] * 2 for t in range(7)]
    assert [s.ignored.tolist() for s in steps] == [[t == 5] * 2 for t in range(7)]
    assert [s.info["elapsed_step"].tolist() for s in steps] == [[x, x] for x in (1, 2, 3, 4, 5, 0, 1)]
    assert not steps[5].rew.any()


def test_envpool_ends_where_the_rules_say():
    lake = make_env("FrozenLake-v1", "envpool", 8)
    _, steps = run(lake, random_actions(lake, 60))
    cells = torch.cat([s.obs[s.end] for s in steps])
    assert len(cells) > 5 and set(cells.tolist()) <= {5, 7, 11, 12, 15}  # holes and the goal
    assert not torch.cat([s.obs[s.ignored] for s in steps]).any()
    _, steps = run(make_env("CartPole-v1", "envpool", 4), [[1] * 4] * 40)
    ends = torch.cat([s.obs[s.end] for s in steps])
    assert len(ends) > 4 and (ends[:, 2].abs() > 0.2094).all()
    assert (torch.cat([s.obs[s.ignored] for s in steps]).abs() <= 0.05).all()
    assert all(torch.equal(s.rew, (~s.ignored).float()) for s in steps)
    assert all(torch.equal(s.ignored, torch.from_numpy(s.info["elapsed_step"] == 0)) for s in steps)


@pytest.mark.parametrize("engine", ["envpool", "gymnasium"])
def test_minigrid(engine):
    env = make_env("MiniGrid-Empty-5x5-v0", engine, 2, keys=["image"], null_action=6, render=True)
    assert env.obs_space == Box(0, 255, (7, 7, 3), np.uint8)
    assert env.act_space == Discrete(7) and env.null_action == 6
    # two steps ahead, right, two steps ahead: the goal
    obs, steps = run(env, [[2, 2], [2, 6], [1, 6], [2, 6], [2, 6], [0, 6]])
    assert [s.info["agent_pos"].tolist() for s in steps[:2]] == [[[2, 1], [2, 1]], [[3, 1], [2, 1]]]
    assert steps[4].end.tolist() == [True, False] and steps[4].info["agent_pos"][0].tolist() == [3, 3]
    assert steps[4].rew[0] == pytest.approx(1 - 0.9 * 5 / 100)
    assert steps[5].ignored.tolist() == [True, False] and steps[5].info["agent_pos"][0].tolist() == [1, 1]
    assert torch.equal(obs[-1][0], obs[0][0]) and steps[5].rew.tolist() == [0, 0]
    frame = env.render()
    assert frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3


def test_engines_show_the_same_room():
    """A walk through the same room, with a bump, to the goal and on."""
    envs = (make_env("MiniGrid-Empty-5x5-v0", engine, 1) for engine in ("envpool", "gymnasium"))
    a, b = (run(env, [[x] for x in (0, 2, 1, 2, 2, 2, 1, 2, 2, 3)])[0] for env in envs)
    assert all(equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("id", FAMILIES)
def test_dtypes(id):
    env = make_env(id, num_envs=2)
    obs, (step,) = run(env, random_actions(env, 1))
    allowed = {np.uint8: torch.uint8, np.float32: torch.float32, np.int64: torch.int64}
    named = env.obs_space if isinstance(env.obs_space, Dict) else {"": env.obs_space}
    for key, space in named.items():
        for leaf in (o[key] if key else o for o in obs):
            assert leaf.dtype == allowed[space.dtype.type] and leaf.shape == (2, *space.shape)
            assert space.contains(leaf[0].numpy() if space.shape else leaf[0].item())
    assert step.rew.dtype == torch.float32 and step.rew.shape == (2,)
    assert {x.dtype for x in (step.end, step.trunc, step.ignored)} == {torch.bool}


@pytest.mark.parametrize("id", ["CartPole-v1", "Count-v0", "Pong-v5"])
def test_tensors_belong_to_the_caller(id):
    env = make_env(id, num_envs=2)
    kept = []
    for act in random_actions(env, 41):
        kept.append(env.step(torch.as_tensor(act)) if kept else env.reset())
        kept[-1] = [(x, x.clone()) for x in ([kept[-1].obs, kept[-1].rew] if kept[1:] else [kept[-1]])]
    assert all(torch.equal(x, y) for pairs in kept for x, y in pairs)
    kept[1][0][0].zero_()  # writable


def test_actions():
    pair = [make_env("HalfCheetah-v5", num_envs=2) for _ in range(2)]
    one, nine = (run(env, [torch.full((2, 6), x)])[1][0] for env, x in zip(pair, (1.0, 9.0), strict=True))
    assert torch.equal(one.obs, nine.obs) and torch.equal(one.rew, nine.rew)  # clipped
    with pytest.raises(ValueError, match=r"allowed is \(2, 6\)"):
        pair[0].step(torch.zeros(2))
    pendulum = make_env("Pendulum-v1", "gymnasium", 2)
    assert pendulum.act_space == Box(-1, 1, (1,), np.float32)  # in unit space
    assert run(pendulum, [torch.full((2, 1), 1.5)])[0][1].shape == (2, 3)


@pytest.mark.parametrize("engine", ["envpool", "gymnasium"])
def test_seeds(engine):
    a, b, c = (make_env("CartPole-v1", engine, 4, seed=s, sticky=0.3) for s in (3, 3, 4))
    first = a.reset()
    assert len(torch.cat([first, c.reset()]).unique(dim=0)) == 8  # neighbouring seeds share no copy
    assert torch.equal(first, b.reset())
    assert torch.equal(first, make_env("CartPole-v1", engine, 6, seed=3).reset()[:4])
    (x, _), (y, _) = (run(env, random_actions(env, 60)) for env in (a, b))
    assert all(torch.equal(i, j) for i, j in zip(x, y, strict=True)) and not torch.equal(x[0], first)


def test_sticky():
    env = make_env("Count-v0", num_envs=50, sticky=0.25, length=9)
    env.reset()
    last, repeats = None, []
    for t in range(200):
        obs = env.step(torch.full((50,), t)).obs
        executed = obs[:, 2]
        if obs[0, 1] == 1:  # an episode's first action
            assert (executed == t).all()
        elif obs[0, 1] > 1:
            assert ((executed == last) | (executed == t)).all()
            repeats.append((executed == last).float())
        last = executed
    share = torch.cat(repeats)
    assert share.mean().item() == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / len(share)) ** 0.5)
    run(make_env("HalfCheetah-v5", num_envs=2, sticky=0.5), [torch.rand(2, 6) for _ in range(3)])


@pytest.mark.parametrize("engine, vectorization", [("gymnasium", "sync"), ("gymnasium", "async"), ("envpool", "sync")])
def test_state(engine, vectorization):
    def new(seed):
        env = make_env(
            "MiniGrid-DoorKey-5x5-v0", engine, 2, seed, ["image"], 0.4, max_episode_steps=6, vectorization=vectorization
        )
        env.record()
        return env

    env, other, stranger = new(0), new(0), new(9)
    acts = random_actions(env, 40)
    run(env, acts[:6])  # the last step ends the episodes: the state includes that the next one is ignored
    state = env.state_dict()
    torch.save(state, buffer := io.BytesIO())
    state = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)  # plain data
    once, steps = run(env, acts[6:], start=False)
    assert env.resumable == (engine == "gymnasium") and steps[0].ignored.all()
    other.reset()
    assert other.load_state_dict(state)
    twice, others = run(other, acts[6:], start=False)
    assert all(torch.equal(x, y) for x, y in zip(once, twice, strict=True))
    assert all(torch.equal(x.ignored, y.ignored) for x, y in zip(steps, others, strict=True))
    stranger.reset()
    assert stranger.load_state_dict(state) == (engine == "gymnasium")  # which keeps the generators' states
    for each in (env, other, stranger):
        each.close()


def test_state_of_mujoco_in_the_midst_of_an_episode():
    env, other = (make_env("HalfCheetah-v5", "gymnasium", 2, seed=s) for s in (0, 9))
    env.record()
    other.record()
    acts = random_actions(env, 30)
    run(env, acts[:15])
    assert other.load_state_dict(env.state_dict())
    (once, _), (twice, _) = (run(e, acts[15:], start=False) for e in (env, other))
    assert all(torch.equal(x, y) for x, y in zip(once, twice, strict=True))


def test_state_that_does_not_come_back():
    """The episode number of Count is not a generator's state; envpool repeats only recorded actions."""
    env, other = (make_env("Count-v0", num_envs=2) for _ in range(2))
    env.record()
    other.record()
    run(env, [[5, 6]] * 6)
    assert not other.load_state_dict(env.state_dict())
    pool = make_env("CartPole-v1", "envpool", 2)
    run(pool, [[0, 1]] * 3)
    assert pool.state_dict() == {} and not pool.load_state_dict({})
    with pytest.raises(RuntimeError, match="before the first reset"):
        pool.record()


def test_keys():
    id = "MiniGrid-DoorKey-5x5-v0"
    for engine in ("envpool", "gymnasium"):
        assert set(make_env(id, engine, 1).reset()) == {"image", "direction"}
        obs = make_env(id, engine, 2, keys=["direction"]).reset()
        assert obs.dtype == torch.int64 and obs.shape == (2,)
        assert set(make_env(id, engine, 1, keys=["direction", "image"]).obs_space) == {"direction", "image"}
    assert make_env(id, "envpool", 2, keys=["mission"]).reset().shape == (2, 96)
    obs, _ = run(make_env("DictCount-v0", num_envs=1), [[1], [1]])
    assert [o["b"].item() for o in obs] == [0, 1, 2] and set(obs[0]) == {"a", "b"}


def test_spaces():
    translation = Translation(MultiDiscrete([3, 4], start=[1, 2]), Discrete(2))
    assert translation.obs_space == MultiDiscrete([3, 4])
    assert translation.read(np.array([[1, 5]])).tolist() == [[0, 3]]
    assert Translation(Box(-1, 1, (2,), np.float64), Discrete(2)).obs_space.dtype == np.float32


@pytest.mark.parametrize("vectorization", ["sync", "async", "vector_entry_point"])
def test_a_package_that_registers_its_world_when_imported(tmp_path, monkeypatch, vectorization):
    """`package:id`, as the README has it."""
    (tmp_path / "a_package_of_worlds.py").write_text(
        "import gymnasium as gym\nfrom test_envs import Count, same_step\n"
        "gym.register('Packed-v0', entry_point=Count, vector_entry_point=same_step)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    env = make_env(
        id="a_package_of_worlds:Packed-v0", engine="gymnasium", num_envs=2, seed=0, vectorization=vectorization
    )
    assert env.reset()[:, 1].tolist() == [0, 0]
    env.close()
    with pytest.raises(ValueError, match=r"no_such_package:Packed-v0.*No module named 'no_such_package'"):
        make_env(id="no_such_package:Packed-v0", engine="gymnasium", num_envs=2, seed=0, vectorization=vectorization)
