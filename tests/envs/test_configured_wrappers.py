"""Wrappers and constructor arguments from the configuration: values, order, errors, resume and evaluation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from helpers.runs import last, rows
from helpers.tiny import tiny_config
from omegaconf import OmegaConf

from worldmodel.analysis.video import film
from worldmodel.envs import VectorEnv, make_env
from worldmodel.training.build import build_env
from worldmodel.training.checkpoint import check_trusted
from worldmodel.training.compose import compose_config
from worldmodel.training.config import bad_input, check
from worldmodel.training.loading import load_agent

G = "gymnasium.wrappers"


class Taking(gym.Env):
    """Takes arguments with the names of `make_env`'s own; observes them."""

    action_space = gym.spaces.Discrete(2)
    observation_space = gym.spaces.Box(-100, 100, (3,), np.float32)

    def __init__(self, levels: int = 0, rooms: int = 0, length: int = 0, render_mode: str | None = None):
        self.numbers = np.array([levels, rooms, length], np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.numbers, {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.numbers, 4.0, False, False, {}


gym.register("Taking-v0", entry_point=Taking)


def wrapped(id: str, *wrappers: str, seed: int = 3) -> VectorEnv:
    """Two copies with wrappers in Hydra's form, each without its braces."""
    listed = ", ".join(f"{{_target_: {w}}}" for w in wrappers)
    return build_env(
        tiny_config("env=base", f"env.id={id}", f"env.wrappers=[{listed}]", "env.num_envs=2", "encoder=mlp"), seed
    )


def act(env: VectorEnv, action: int = 0):
    return env.step(torch.full((env.num_envs,), action))


def plain(id: str, seed: int = 3, **kwargs: Any) -> VectorEnv:
    return make_env(id, "gymnasium", 2, seed, **kwargs)


def test_flattened_observation() -> None:
    env = wrapped("FrozenLake-v1", f"{G}.FlattenObservation")  # the engine is auto, which prefers envpool
    assert env.reset().tolist() == [[1.0] + [0.0] * 15] * 2 and env.obs_space.shape == (16,)


def test_rescaled_observation_and_clipped_reward() -> None:
    rescale = f"{G}.RescaleObservation, min_obs: -1, max_obs: 1"
    env, other = wrapped("MountainCar-v0", rescale, f"{G}.ClipReward, min_reward: -0.25"), plain("MountainCar-v0")
    low, high = torch.tensor([-1.2, -0.07]), torch.tensor([0.6, 0.07])
    torch.testing.assert_close(env.reset(), 2 * (other.reset() - low) / (high - low) - 1, atol=1e-5, rtol=0)
    one, two = act(env), act(other)
    torch.testing.assert_close(one.obs, 2 * (two.obs - low) / (high - low) - 1, atol=1e-5, rtol=0)
    assert one.rew.tolist() == [-0.25] * 2 and two.rew.tolist() == [-1.0] * 2


def test_stacked_frames_and_a_time_limit() -> None:
    env = wrapped("CartPole-v1", f"{G}.FrameStackObservation, stack_size: 3", f"{G}.TimeLimit, max_episode_steps: 2")
    other = plain("CartPole-v1")
    seen = [other.reset(), act(other).obs, act(other).obs]
    assert torch.equal(env.reset(), torch.stack([seen[0]] * 3, 1))
    first, second, third = (act(env) for _ in range(3))
    assert torch.equal(first.obs, torch.stack([seen[0], seen[0], seen[1]], 1)) and not first.trunc.any()
    assert torch.equal(second.obs, torch.stack(seen, 1)) and second.trunc.all() and not second.end.any()
    assert third.ignored.all() and torch.equal(third.obs, third.obs[:, :1].expand(-1, 3, -1))


def test_order() -> None:
    double = f"{G}.TransformReward, func: {{_target_: numpy.sqrt, _partial_: true}}"
    clip = f"{G}.ClipReward, max_reward: 3"
    for wrappers, expected in (((double, clip), 2.0), ((clip, double), math.sqrt(3))):
        env = wrapped("Taking-v0", *wrappers)
        env.reset()
        assert act(env).rew.tolist() == pytest.approx([expected] * 2)


def test_positional_arguments() -> None:
    hundredfold = f"{G}.TransformReward, func: {{_target_: operator.mul, _partial_: true, _args_: [100.0]}}"
    env = wrapped("Taking-v0", hundredfold)
    check_trusted({"env": {"_target_": "operator.mul"}}, "x")  # a configuration of the project has it
    env.reset()
    assert act(env).rew.tolist() == [400.0] * 2


def test_minigrid() -> None:
    env = wrapped("MiniGrid-Empty-5x5-v0", "minigrid.wrappers.RGBImgPartialObsWrapper, tile_size: 4")
    assert env.reset()["image"].shape == (2, 28, 28, 3) and env.info["agent_pos"].tolist() == [[1, 1]] * 2
    env = wrapped("MiniGrid-Empty-5x5-v0", "minigrid.wrappers.FullyObsWrapper", "minigrid.wrappers.ImgObsWrapper")
    view = env.reset()
    assert view.shape == (2, 5, 5, 3) and view[0, 1, 1].tolist() == [10, 0, 0] and view[0, 3, 3, 0] == 8  # agent, goal


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([f"env.wrappers=[{{_target_: {G}.Foo}}]"], rf"^env.wrappers\[0\]._target_={G}.Foo: not found \(.*Foo"),
        (["env.wrappers=[{_target_: TimeLimit}]"], r"^env.wrappers\[0\]._target_=TimeLimit: not found"),
        ([f"env.wrappers=[{{_target_: {G}.TimeLimit, foo: 3}}]"], r"^env.wrappers\[0\].foo=3: .*max_episode_steps"),
        ([f"env.wrappers=[{{_target_: {G}.TimeLimit}}]"], r"^env.wrappers\[0\]: TimeLimit .*max_episode_steps"),
        (
            [f"env.wrappers=[{{_target_: {G}.Autoreset}}, {{_target_: {G}.DtypeObservation, dtype: x}}]"],
            r"^env.wrappers\[1\]: DtypeObservation cannot be applied with \{'dtype': 'x'\}: TypeError",
        ),
        (["env.wrappers=[{_target_: builtins.id}]"], r"^env.wrappers\[0\]: id gives a int, allowed are wrappers"),
        ([f"env.wrappers=[{{_target_: {G}.NormalizeReward}}]"], r"^env.wrappers\[0\]: NormalizeReward has statistics"),
        (
            ["env=minigrid", "env.wrappers=[{_target_: minigrid.wrappers.FullyObsWrapper}]"],
            "^env.rooms=True: allowed with env.wrappers=FullyObsWrapper, which changes the view, is false",
        ),
        (["env.wrappers=3"], "^env.wrappers=3: allowed is a list of mappings"),
        (["env.wrappers=[3]"], r"^env.wrappers\[0\]=3: allowed is a list of mappings"),
        (["env.wrappers=[{max_reward: 1}]"], r"^env.wrappers\[0\]=\{'max_reward': 1\}: allowed"),
        (
            [f"env.wrappers=[{{_target_: {G}.ClipReward, max_reward: 1}}]", "env.engine=envpool"],
            "^env.wrappers: allowed with env.engine=envpool is ",
        ),
        (
            [f"env.wrappers=[{{_target_: {G}.ClipReward, max_reward: 1}}]", "env.vectorization=vector_entry_point"],
            r"^env.wrappers=\[ClipReward\]: allowed with env.vectorization=vector_entry_point is \[\]",
        ),
        (["+env.kwargs.foo=3"], "^env.id='CartPole-v1': envpool does not take .*'foo': 3"),
        (["+env.kwargs.foo=3", "env.engine=gymnasium"], "^env.id='CartPole-v1': gymnasium cannot create .*'foo': 3"),
        (["env.kwargs=3"], "^env.kwargs=3: allowed is dict"),
        (["+env.kwargs.foo=3", "+env.foo=4"], "^env.foo=4: env.kwargs has it as well, use env.kwargs.foo=4 alone"),
        (["env.kwargs.foo=3"], "^env.kwargs.foo.*: no such key, a new argument of the environment needs a plus"),
        (
            ["env.foo=3"],
            r"^env.foo.*: no such key, an argument of the environment is \+env.kwargs.foo.*; allowed are id",
        ),
        (["env=chain", "env.length=3"], r"^env.length.*: .*an argument of the environment is env.kwargs.length"),
    ],
)
def test_bad_input(overrides: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        cfg = compose_config(["env=cartpole", "run_dir=unused", "env.num_envs=1", *overrides])
        check(cfg)
        with bad_input(cfg):
            build_env(cfg, 0)
    assert "\n" not in str(caught.value)


def test_arguments_of_the_environment() -> None:
    """`env.kwargs` takes any name; another key of `env` is an argument as well, as in the configurations of before."""
    for overrides, expected in (
        (["+env.kwargs.levels=7", "+env.kwargs.rooms=8", "+env.kwargs.length=9"], [7, 8, 9]),
        (["+env.kwargs.levels=7", "+env.length=9"], [7, 0, 9]),
    ):
        env = build_env(tiny_config("env=base", "env.id=Taking-v0", "env.num_envs=1", *overrides), 0)
        assert env.reset().tolist() == [expected]


def test_state_of_wrapped_copies() -> None:
    """A restored environment goes on exactly: stacked frames, random repetitions and the time limit included."""
    wrappers = (
        f"{G}.FrameStackObservation, stack_size: 3", f"{G}.StickyAction, repeat_action_probability: 0.5",
        f"{G}.TimeLimit, max_episode_steps: 9",
    )  # fmt: skip
    env, other = wrapped("CartPole-v1", *wrappers), wrapped("CartPole-v1", *wrappers, seed=4)
    env.record(), other.record()
    env.reset()
    for t in range(13):
        act(env, t % 2)
    assert env.resumable and other.load_state_dict(env.state_dict())
    for t in range(20):
        one, two = act(env, t % 2), act(other, t % 2)
        assert torch.equal(one.obs, two.obs) and torch.equal(one.trunc, two.trunc) and torch.equal(one.rew, two.rew)


def test_resume_and_film(cli, tmp_path: Path) -> None:
    """A run with wrappers resumes bit for bit from its own configuration, and its checkpoint acts and is filmed."""
    names = [f"{{_target_: {G}.TimeLimit, max_episode_steps: 5}}", f"{{_target_: {G}.FlattenObservation}}"]
    given = ["env=base", "env.id=FrozenLake-v1", f"env.wrappers=[{', '.join(names)}]", "encoder=mlp"]
    assert cli("total_steps=128", "run_dir=whole", *given).code == 0
    assert cli("total_steps=64", "run_dir=halves", *given).code == 0
    assert cli("total_steps=128", "run_dir=halves", "checkpoint=auto", tiny=[])[::2] == (0, "")
    one, two = (last(tmp_path / name) for name in ("whole", "halves"))
    torch.testing.assert_close(one["state_dict"], two["state_dict"], rtol=0, atol=0, equal_nan=True)
    assert rows(tmp_path / "halves")[-1]["length"] <= 5
    agent, cfg = load_agent(tmp_path / "halves" / "checkpoints" / "last.ckpt")
    assert film(agent, cfg, tmp_path / "film.mp4", episodes=1, max_steps=4) == "film.mp4"


def test_trusted_wrappers(monkeypatch) -> None:
    """A checkpoint's configuration may name wrappers of the libraries, and those on the command line."""

    def stored(target: str) -> dict[str, Any]:
        return OmegaConf.to_container(OmegaConf.create({"env": {"wrappers": [{"_target_": target}]}}))

    check_trusted(stored(f"{G}.ClipReward"), "x")
    check_trusted(stored("minigrid.wrappers.ImgObsWrapper"), "x")
    for target in ("os.system", f"{G}.RecordVideo", f"{G}.utils.os", "my.Wrapper"):
        with pytest.raises(ValueError, match=f"^x: _target_={target} in its configuration"):
            check_trusted(stored(target), "x")
    monkeypatch.setattr("sys.argv", ["train", "env.wrappers=[{_target_: my.Wrapper}]"])
    check_trusted(stored("my.Wrapper"), "x")
