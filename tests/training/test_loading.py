"""A loaded agent in one Gymnasium environment: its actions, its memory and its resets."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from helpers.tiny import tiny_agent, tiny_config
from omegaconf import OmegaConf

from worldmodel.errors import ConfigError
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.training.build import build_agent, build_data, build_module, env_spec
from worldmodel.training.checkpoint import FORMAT
from worldmodel.training.loading import Agent, load_agent
from worldmodel.training.run import make_trainer

CARTPOLE = ["env=cartpole", "encoder=mlp", "encoder.hidden=[16]"]
WINDOW = 4 + 8 + 1  # rows that fit before the window shifts


def saved(path: Path, *overrides: str) -> Path:
    """The checkpoint of an untrained tiny agent."""
    torch.manual_seed(0)
    agent, stream, cfg = tiny_agent(*overrides)
    stream.close()
    config = OmegaConf.to_container(cfg)
    content = {"state_dict": agent.state_dict(), "config": config, "env_spec": agent.env_spec.to_dict()}
    torch.save(content | {"format": FORMAT}, path)
    return path


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("agent") / "cartpole.ckpt", *CARTPOLE)


def test_loaded_agent_in_minigrid(tiny_run: Path):
    env = pytest.importorskip("minigrid") and gym.make("MiniGrid-DoorKey-8x8-v0")
    agent = Agent.load(tiny_run / "checkpoints" / "last.ckpt")
    obs, _ = env.reset(seed=0)
    for _ in range(2 * WINDOW):
        act = agent.act(obs)
        assert type(act) is int and env.action_space.contains(act)
        obs, *_ = env.step(act)


def test_loaded_agent_in_cartpole(cartpole: Path):
    env = gym.make("CartPole-v1")
    agent = Agent.load(cartpole)
    obs, _ = env.reset(seed=0)
    for _ in range(2 * WINDOW):
        obs, _, end, trunc, _ = env.step(agent.act(obs))
        if end or trunc:
            obs, _ = env.reset()
            agent.reset()


def test_a_box_action_has_the_shape_and_dtype_of_its_space(tmp_path: Path):
    path = saved(tmp_path / "a.ckpt", "env=cartpole", "env.id=Pendulum-v1", "encoder=mlp", "encoder.hidden=[16]")
    env = gym.make("Pendulum-v1")
    act = Agent.load(path).act(env.reset(seed=0)[0])
    assert act.shape == env.action_space.shape and act.dtype == env.action_space.dtype


def test_several_keys(tmp_path: Path):
    path = saved(tmp_path / "a.ckpt", "env=dict", "encoder=dict", "encoder.dim=16")
    env = pytest.importorskip("minigrid") and gym.make("MiniGrid-DoorKey-5x5-v0")
    assert env.action_space.contains(Agent.load(path).act(env.reset(seed=0)[0]))


def observations(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32))


def play(agent: Agent, greedy: bool) -> tuple[list[int], torch.Tensor]:
    """Actions and memory over more observations than a window holds, in two episodes."""
    torch.manual_seed(3)
    acts, hs = [], []
    for i, obs in enumerate(observations(2 * WINDOW + 3)):
        if i in (0, WINDOW + 3):
            agent.reset()
        acts.append(agent.act(obs, greedy))
        hs.append(agent.output.h)
    return acts, torch.cat(hs)


@pytest.mark.parametrize("greedy", [False, True])
def test_a_saved_and_loaded_agent_acts_identically(tmp_path: Path, greedy: bool):
    """A checkpoint that a trainer wrote restores the trained agent."""
    cfg = tiny_config(*CARTPOLE, "total_steps=64", f"run_dir={tmp_path}")
    torch.manual_seed(0)
    spec = env_spec(cfg)
    module, data = build_agent(cfg, spec), build_data(cfg)
    untrained = {k: v.clone() for k, v in module.state_dict().items()}
    trainer = make_trainer(cfg, [], data)
    trainer.fit(build_module(cfg, module), data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert not all(v.equal(untrained[k]) for k, v in module.state_dict().items())
    kept = Agent(module.eval(), cfg)
    loaded = Agent.load(tmp_path / "a.ckpt")
    (acts, h), (acts_again, h_again) = play(kept, greedy), play(loaded, greedy)
    assert acts == acts_again and h.equal(h_again)
    assert greedy or len(set(acts)) > 1


def recomputed(agent: Agent) -> torch.Tensor:
    """h (R, D) of the rows in the agent's window, by one forward pass."""
    rows = agent.actor.rows[:, : agent.actor.cursor]
    model = agent.module.model
    with torch.no_grad():
        return model.encode_sequence(model.encoder(rows.obs), rows)[0]


def test_memory_equals_the_forward_pass_before_and_after_the_window_shifts(cartpole: Path):
    agent, shifted = Agent.load(cartpole), False
    for i, obs in enumerate(observations(3 * WINDOW)):
        before = agent.actor.cursor
        agent.act(obs)
        shifted = shifted or agent.actor.cursor < before
        torch.testing.assert_close(agent.output.h[0], recomputed(agent)[-1], atol=1e-5, rtol=1e-4)
        valid = agent.actor.rows.valid[0, : agent.actor.cursor]
        assert int(valid.sum()) >= min(i + 1, 4 + 1)  # the last K rows are always in the window
        assert agent.actor.rows.obs[0, agent.actor.cursor - 1].numpy() == pytest.approx(obs)
    assert shifted


def test_memory_equals_that_of_an_actor_with_several_environments(cartpole: Path):
    agent = Agent.load(cartpole)
    module, cfg = load_agent(cartpole)
    actor = module.make_actor(3, cfg.data.context, cfg.data.rollout_length)
    no = torch.zeros(3, dtype=torch.bool)
    for obs in observations(WINDOW + 5):
        act = agent.act(obs)
        three = torch.from_numpy(np.stack([obs, 0 * obs, -obs]))
        output = actor.observe(three, actions=torch.tensor([act, 0, 1]))
        actor.record_outcome(torch.zeros(3), no, no, no)
        torch.testing.assert_close(output.h[0], agent.output.h[0], atol=1e-5, rtol=1e-4)


def test_reset_clears_the_memory(cartpole: Path):
    agent, (first, *others) = Agent.load(cartpole), observations(6)
    agent.act(first)
    fresh = agent.output.h
    for obs in others:
        agent.act(obs)
    agent.act(first)
    assert not agent.output.h.equal(fresh)
    agent.reset()
    agent.act(first)
    assert agent.output.h.equal(fresh)


def test_module_is_in_evaluation_mode(cartpole: Path):
    module, cfg = load_agent(cartpole)
    assert isinstance(module, CuriousAgent) and not module.training
    assert cfg.env.id == "CartPole-v1"


def test_bad_checkpoints(tmp_path: Path, cartpole: Path):
    with pytest.raises(ConfigError, match="no such file"):
        load_agent(tmp_path / "none.ckpt")
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    with pytest.raises(ConfigError, match="not readable"):
        load_agent(tmp_path / "text.ckpt")
    whole = torch.load(cartpole, weights_only=True)
    torch.save(
        whole | {"config": {**whole["config"], "memory": {**whole["config"]["memory"], "dim": 32}}}, tmp_path / "b"
    )
    with pytest.raises(ConfigError, match="of another architecture"):
        load_agent(tmp_path / "b")
