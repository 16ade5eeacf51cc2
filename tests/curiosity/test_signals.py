"""Every learnt signal: smaller rewards for familiar transitions, own gradients, and complete checkpoints."""

from __future__ import annotations

import copy
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from helpers.experience import collected
from helpers.tiny import EASY, joint_loss, tiny_config
from omegaconf import OmegaConf

from worldmodel.curiosity import BYOLExplore
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.learner.run_episodes import freeze
from worldmodel.masked import masked_mean
from worldmodel.training.build import EnvSpec, build_agent, env_spec
from worldmodel.training.checkpoint import read_checkpoint
from worldmodel.training.module import TrainingModule
from worldmodel.types import Minibatch, Rollout

SIGNALS = [
    *("rnd", "icm", "random_features", "disagreement", "max", "plan2explore", "byol_explore", "ama"),
    *("curiosity_critic", "learning_progress", "cfn", "bayesian_surprise"),
]
SMALL = {  # widths that learn in a second
    "rnd": ["curiosity.dim=32"],
    "max": ["curiosity.hidden=32", "curiosity.members=4"],
    "plan2explore": ["curiosity.hidden=32", "curiosity.members=4"],
    "curiosity_critic": ["curiosity.hidden=32"],
    "bayesian_surprise": ["curiosity.hidden=32", "curiosity.members=4"],
}
OTHERS = ["curiosity.dim=16", "curiosity.hidden=32"]


def make(signal: str, *overrides: str) -> tuple[CuriousAgent, list[Rollout]]:
    """An agent of this signal, and two rollouts in which episodes end."""
    return collected(f"curiosity={signal}", *SMALL.get(signal, OTHERS), *EASY, *overrides)


@pytest.fixture(params=SIGNALS)
def signal(request: pytest.FixtureRequest) -> str:
    return request.param


def trained_by(terms: dict[str, torch.Tensor], roll: Rollout) -> torch.Tensor:
    return sum(masked_mean(x, roll.new_steps(roll.mask)) for x in terms.values())


class Learner:
    """An agent that learns from fixed rollouts, with a scored rollout before every 20 steps of the optimizer."""

    def __init__(self, signal: str, lr: float = 1e-2):
        options = ["data.rollout_length=16", "env.num_envs=8", "memory.dim=32", "signal_channels=[]"]
        self.agent, (self.old, self.new) = make(signal, *options)
        self.new.obs[..., 0] = (self.new.obs[..., 0] + 3) % 11  # a world with other observations
        self.optimizer = torch.optim.Adam([p for p in self.agent.parameters() if p.requires_grad], lr)

    def learn(self, roll: Rollout, rounds: int) -> list[float]:
        """Return the mean raw reward of the rollout before each round."""
        agent, paid = self.agent, []
        for _ in range(rounds):
            with torch.no_grad():
                rew = agent.curiosity.reward(roll, agent.model.score_rollout(roll))
            paid.append(float(masked_mean(rew, roll.new_steps(roll.mask))))
            for _ in range(20):
                out = agent.model(roll)
                losses = {"delta": agent.model.losses(out, roll)["delta"]} | agent.curiosity.losses(roll, out)
                self.optimizer.zero_grad()
                trained_by(losses, roll).backward()
                self.optimizer.step()
                agent.curiosity.update()
        return paid

    @torch.no_grad()
    def score(self, roll: Rollout) -> float:
        """Mean raw reward of a rollout in expectation, without changing any state."""
        signal = copy.deepcopy(self.agent.curiosity).eval()
        # the reward of BYOL-Explore is its error above the average of the past; here, the error itself
        raw = signal.errors(roll) if isinstance(signal, BYOLExplore) else signal.reward(roll, self.agent.model(roll))
        return float(masked_mean(raw, roll.new_steps(roll.mask)))


@pytest.mark.parametrize("signal", [s for s in SIGNALS if s != "learning_progress"], indirect=True)
def test_familiar_transitions_have_smaller_rewards(signal: str) -> None:
    learner = Learner(signal)
    learner.learn(learner.old, 3)
    before, known = learner.score(learner.new), learner.score(learner.old)
    assert before > 1.5 * known + 0.05, "the new world is not new"
    learner.learn(learner.new, 3)
    assert learner.score(learner.new) < known + 0.5 * (before - known)


def test_the_reward_of_learning_progress_ends_with_it() -> None:
    learner = Learner("learning_progress", lr=3e-3)
    first, second, *_, last = learner.learn(learner.old, 8)
    assert first == 0 and second > 0.2 and abs(last) < 0.1 * second


def test_the_reward_of_byol_explore_fades() -> None:
    learner = Learner("byol_explore", lr=3e-3)
    first, *_, last = learner.learn(learner.old, 4)
    assert first > 0.1 and last < 0.1 * first


def test_gradients_stay_with_the_signal(signal: str) -> None:
    agent, (roll, _) = make(signal, "target=sigreg")  # whose y carries gradients
    agent.score(roll)
    old = roll.as_sequences()  # as from the replay: no h, no z, no rewards
    out = agent.model(old)
    losses = agent.curiosity.losses(old, out)
    assert out.h.requires_grad and out.y.requires_grad
    assert all(x.shape == roll.logp.shape and x.isfinite().all() for x in losses.values())
    for key, x in losses.items():
        trained_by({key: x}, old).backward(retain_graph=True)
    assert all(p.grad is None for p in [*agent.model.parameters(), *agent.policy.parameters()])
    for name, p in agent.curiosity.named_parameters():  # every trainable one is reached, or other ranks would wait
        assert (p.grad is not None) == p.requires_grad, name
    assert sum(float(p.grad.abs().sum()) for p in agent.curiosity.parameters() if p.requires_grad) > 0


def test_losses_have_names_of_their_own_and_weights_reach_them(signal: str) -> None:
    agent, (roll, _) = make(signal, "target=inverse")
    roll = agent.score(roll)
    out = agent.model(roll)
    names = agent.curiosity.losses(roll, out).keys()
    assert names and all(key.startswith(signal) for key in names)
    rest = agent.model.losses(out, roll).keys() | agent.objective.losses(agent.policy, roll.h, roll.z, roll).keys()
    assert not names & rest

    def gradients() -> list[torch.Tensor]:
        agent.zero_grad()
        torch.manual_seed(1)
        joint_loss(agent, Minibatch(roll, roll)).backward()
        return [p.grad.clone() for p in agent.curiosity.parameters() if p.requires_grad]

    plain = gradients()
    agent.weights |= dict.fromkeys(names, 3.0)
    for one, three in zip(plain, gradients(), strict=True):
        torch.testing.assert_close(three, 3 * one, rtol=1e-3, atol=1e-5)


def test_a_state_dict_is_complete(signal: str) -> None:
    (agent, rollouts), (other, _) = make(signal), make(signal)
    optimizer = torch.optim.Adam([p for p in agent.parameters() if p.requires_grad], 1e-2)
    for unscored in rollouts:
        roll = agent.score(unscored)
        joint_loss(agent, Minibatch(roll, roll)).backward()
        optimizer.step()
        agent.curiosity.update()
    other.load_state_dict(agent.state_dict())
    out = agent.model.score_rollout(roll)
    with torch.no_grad():
        assert torch.equal(agent.curiosity.reward(roll, out), other.curiosity.reward(roll, out))
        assert torch.equal(agent.curiosity.reward(roll, out), other.curiosity.reward(roll, out))


def test_an_evaluation_leaves_no_trace(signal: str) -> None:
    agent, (roll, later) = make(signal)
    agent.score(roll)
    freeze(agent, 4)
    before = {k: v.clone() for k, v in agent.curiosity.state_dict().items()}
    reward = agent.curiosity.reward(later, agent.model.score_rollout(later))
    assert reward.isfinite().all() and reward.shape == later.logp.shape
    assert all(torch.equal(v, before[k]) for k, v in agent.curiosity.state_dict().items())
    assert torch.equal(reward, agent.curiosity.reward(later, agent.model.score_rollout(later)))


def test_no_reward_for_a_reset(signal: str) -> None:
    agent, rollouts = make(signal)
    for unscored in rollouts:
        roll = agent.score(unscored)
    mask = roll.new_steps(roll.mask)
    assert not mask.all() and (roll.rew_int[~mask] == 0).all() and (roll.rew_int[mask] != 0).any()


@cache
def other_world(experiment: str) -> tuple[EnvSpec, Rollout]:
    """The spaces of an experiment, and a rollout of it."""
    _, (roll, _) = collected(f"experiment={experiment}", "curiosity=none")
    return env_spec(tiny_config(f"experiment={experiment}")), roll


@pytest.mark.parametrize("experiment", ["cartpole", "mujoco", "dict", "frozenlake"])
def test_other_observations_and_actions(signal: str, experiment: str) -> None:
    spec, roll = other_world(experiment)
    cfg = tiny_config(f"experiment={experiment}", f"curiosity={signal}", *SMALL.get(signal, OTHERS))
    agent = build_agent(cfg, spec)
    roll = agent.score(roll)
    loss = joint_loss(agent, Minibatch(roll, roll))
    assert loss.isfinite() and roll.rew_int.isfinite().all()


def test_training(cli, tmp_path: Path) -> None:
    """Two updates of the command with all signals at once, and with sequences from the replay."""
    run, options = tmp_path / "run", ["data.replay_batch=1", "data.replay_capacity=16"]
    for name in SIGNALS:
        options += [f"+curiosity@curiosity.parts.{name}={name}", f"+curiosity.weights.{name}=1"]
        options += [x.replace("curiosity.", f"curiosity.parts.{name}.") for x in SMALL.get(name, OTHERS)]
    ended = cli("curiosity=weighted_sum", *options, f"run_dir={run}", "total_steps=64")
    assert ended.code == 0, ended.err
    header, *rows = (run / "metrics.csv").read_text().splitlines()
    assert len(rows) == 2 and all(f"loss_{name}_{name}" in header for name in SIGNALS)
    saved = read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]
    for name, part in OmegaConf.load(run / "config.yaml").curiosity.parts.items():
        assert part._target_.startswith("worldmodel.curiosity.")
        assert any(key.startswith(f"agent.curiosity.parts.{name}.") for key in saved) == (name in [*SIGNALS, "count"])
    for name in ("learning_progress.begun", "byol_explore.error.weight"):  # updated while training
        assert saved[f"agent.curiosity.parts.{name}"] > 0


def test_a_large_loss_of_a_signal_does_not_clip_other_gradients() -> None:
    agent, (roll, _) = make("rnd")
    roll, module = agent.score(roll), TrainingModule(agent, partial(torch.optim.Adam))

    def clipped(weight: float) -> tuple[list[torch.Tensor], torch.Tensor]:
        agent.zero_grad()
        agent.weights["rnd"] = weight
        joint_loss(agent, Minibatch(roll, roll)).backward()
        module.configure_gradient_clipping(None, 0.1, None)
        rest = [p.grad.clone() for part in (agent.model, agent.policy) for p in part.parameters() if p.grad is not None]
        own = torch.stack([p.grad.norm() for p in agent.curiosity.parameters() if p.grad is not None]).norm()
        return rest, own

    (quiet, _), (beside, own) = clipped(1.0), clipped(1e4)
    assert all(torch.equal(a, b) for a, b in zip(quiet, beside, strict=True))
    torch.testing.assert_close(own, torch.tensor(0.1), rtol=1e-4, atol=0.0)
