"""Worlds with a known answer: entropies against the published table, beliefs against brute force."""

from __future__ import annotations

import itertools

import gymnasium as gym
import numpy as np
import pytest
import torch
from helpers.tiny import tiny_agent

from worldmodel.envs import make_env
from worldmodel.envs.worlds.hmm import HMM
from worldmodel.envs.worlds.processes import PROCESSES, even, golden_mean, mess3, mess3_actions, tiger, zero_one_random

BITS = np.log(2)


@pytest.mark.parametrize(
    ("process", "length", "rate", "excess", "state_entropy", "tolerance"),
    [
        (mess3(0.05, 0.85), 10, 1.144717, 0.571, 1.585, 1e-5),
        (mess3(0.15, 0.6), 8, 1.570934, 0.0181, 1.585, 1e-6),
        (golden_mean(), 20, 2 / 3, 0.2516, 0.9183, 1e-9),
        (even(), 80, 2 / 3, 0.9183, 0.9183, 1e-6),
        (zero_one_random(), 80, 1 / 3, 1.585, 1.585, 1e-6),
    ],
)
def test_entropies_of_the_table(process: HMM, length, rate, excess, state_entropy, tolerance) -> None:
    """Bits: entropy rate, excess entropy, entropy of the hidden state (published table)."""
    assert process.entropy_rate(length) / BITS == pytest.approx(rate, abs=tolerance)
    assert process.excess_entropy(length) / BITS == pytest.approx(excess, abs=6e-4)
    pi = process.stationary()
    assert pi @ process.transition() == pytest.approx(pi)
    assert -(pi * np.log2(pi)).sum() == pytest.approx(state_entropy, abs=1e-4)


def test_mess3_by_position() -> None:
    known = [1.0986, 0.8577, 0.8134, 0.7981, 0.7947, 0.7938]
    assert mess3().cross_entropy(6) == pytest.approx(known, abs=6e-5)
    assert mess3_actions().cross_entropy(4) == pytest.approx(known[:4], abs=6e-5)
    assert np.sort(np.linalg.eigvals(mess3().transition())) == pytest.approx([0.85, 0.85, 1])


def test_tensors() -> None:
    """T[action, token, from, to] is fixed here, since parameterisations differ between papers."""
    a, b, x, y = 0.85, 0.075, 0.05, 0.9
    first = [[a * y, b * x, b * x], [a * x, b * y, b * x], [a * x, b * x, b * y]]
    assert mess3().tensor[0, 0] == pytest.approx(np.array(first))
    turned = mess3_actions().tensor
    assert turned[0] == pytest.approx(mess3().tensor[0])
    assert turned[1, :, 0] == pytest.approx(turned[0, :, 1]) and turned[2, :, 0] == pytest.approx(turned[0, :, 2])
    for make in PROCESSES.values():
        assert make().tensor.sum((1, 3)) == pytest.approx(1.0)


def test_tiger_by_hand() -> None:
    process = tiger()
    belief, listen = np.array([[0.5, 0.5]]), np.array([0])
    once = process.update(belief, listen, np.array([0]))
    assert once[0] == pytest.approx([0.85, 0.15])
    twice = process.update(once, listen, np.array([0]))
    assert twice[0, 0] == pytest.approx(0.85**2 / (0.85**2 + 0.15**2))
    assert process.update(once, listen, np.array([1]))[0] == pytest.approx([0.5, 0.5])
    assert process.update(twice, np.array([2]), np.array([1]))[0] == pytest.approx([0.5, 0.5])
    hear = 0.85 * 0.85 + 0.15 * 0.15
    assert process.predict(once)[0] == pytest.approx(np.array([[hear, 1 - hear], [0.5, 0.5], [0.5, 0.5]]))
    assert process.rewards.tolist() == [[-1, -1], [-100, 10], [10, -100]]


@pytest.mark.parametrize("name", ["Mess3Actions", "Even", "Tiger"])
def test_belief_is_brute_force_bayes(name: str) -> None:
    """Sum over all paths of hidden states of an episode, without recursion."""
    env = make_env(f"worldmodel/{name}-v0", num_envs=3, vectorization="vector_entry_point", max_episode_steps=5)
    process = PROCESSES[name]()
    tokens, acts, beliefs = [env.reset().numpy()], [np.full(3, process.start)], [env.info["belief"]]
    for _ in range(5):
        acts.append(np.random.default_rng(len(acts)).integers(process.num_actions, size=3))
        step = env.step(torch.from_numpy(acts[-1]))
        tokens.append(step.obs.numpy())
        beliefs.append(step.info["belief"])
    assert step.trunc.all()
    for copy in range(3):
        for last in range(6):
            joint = np.zeros(process.num_states)
            for path in itertools.product(range(process.num_states), repeat=last + 2):
                chance = process.initial[path[0]]
                for t in range(last + 1):
                    chance *= process.tensor[acts[t][copy], tokens[t][copy], path[t], path[t + 1]]
                joint[path[-1]] += chance
            assert beliefs[last][copy] == pytest.approx(joint / joint.sum())


@pytest.mark.parametrize("vectorization", ["vector_entry_point", "sync"])
def test_rows(vectorization: str) -> None:
    """A reset begins with the prior, its reward is 0, and no other row is ignored."""
    env = make_env("worldmodel/Tiger-v0", num_envs=2, vectorization=vectorization, max_episode_steps=3)
    env.reset()
    steps = [env.step(torch.tensor([0, 1])) for _ in range(8)]
    assert [s.trunc[0].item() for s in steps] == [0, 0, 1, 0, 0, 0, 1, 0]
    assert [s.ignored[1].item() for s in steps] == [0, 0, 0, 1, 0, 0, 0, 1]
    assert [s.rew[0].item() for s in steps] == [-1, -1, -1, 0, -1, -1, -1, 0]
    assert all(s.rew[1].item() in (10, -100) for s in steps if not s.ignored[1])
    assert all(s.info["belief"][0] == pytest.approx([0.5, 0.5]) for s in steps if s.ignored[0])
    assert not any(s.end.any() for s in steps) and steps[0].obs.dtype == torch.int64
    assert steps[0].info["predictive"].shape == (2, 3, 2) and steps[0].info["entropy"].shape == (2, 3)
    assert steps[0].info["entropy"][:, 1] == pytest.approx(np.log(2))


def test_what_is_seen_is_as_predicted() -> None:
    """The ideal observer's log loss on what came is, on average, the exact cross-entropy by position, and its belief
    is calibrated."""
    env = make_env("worldmodel/Mess3Actions-v0", num_envs=2000, vectorization="vector_entry_point", seed=100)
    env.reset()
    optimum, generator = mess3().cross_entropy(5), torch.Generator().manual_seed(0)
    predictive, found, right = env.info["predictive"], [], []
    for _ in range(4):
        act = torch.randint(3, (2000,), generator=generator)
        step = env.step(act)
        found.append(-np.log(predictive[np.arange(2000), act, step.obs]).mean())
        predictive = step.info["predictive"]
        belief, state = step.info["belief"], step.info["state"]
        right.append((belief[np.arange(2000), state].mean(), (belief**2).sum(1).mean()))
    assert found == pytest.approx(optimum[1:], abs=4 * 0.8 / 2000**0.5)
    for mean, expected in right:  # P(state) under the belief, where states are drawn from the belief
        assert mean == pytest.approx(expected, abs=0.03)


def test_single_copies_agree_with_the_registered_vector() -> None:
    env = gym.make("worldmodel/Mess3-v0", disable_env_checker=True)
    token, info = env.reset(seed=3)
    many = make_env("worldmodel/Mess3-v0", num_envs=1, vectorization="vector_entry_point")
    assert env.observation_space.contains(token) and info["belief"].shape == (3,) and many.obs_space.n == 3
    for t in range(64):
        *_, trunc, info = env.step(0)
        assert trunc == (t == 63)
    assert info["predictive"].shape == (1, 3)


def test_state_goes_on() -> None:
    def new(seed: int):
        return make_env("worldmodel/Mess3-v0", num_envs=4, seed=seed, vectorization="vector_entry_point")

    env, other = new(0), new(1)
    env.reset(), other.reset()
    state = env.state_dict()
    assert env.resumable
    other.load_state_dict(state)
    for _ in range(70):
        a, b = (e.step(torch.zeros(4, dtype=torch.long)) for e in (env, other))
        assert torch.equal(a.obs, b.obs) and np.array_equal(a.info["belief"], b.info["belief"])
        assert torch.equal(a.ignored, b.ignored)


def test_rollouts_contain_info() -> None:
    """info[:, t] belongs to the observation of row t, across rollouts and resets."""
    _, stream, _ = tiny_agent("experiment=mess3_actions", "env.kwargs.max_episode_steps=6")
    process, previous = mess3_actions(), None
    for _ in range(2):
        roll = stream.collector.collect()
        assert roll.info["belief"].shape == (4, 9, 3) and roll.info["entropy"].shape == (4, 9, 3)
        before = roll.info["belief"][:, :-1].numpy()
        obs, act, mask = roll.obs[:, -roll.num_new :], roll.new_steps(roll.act), roll.new_steps(roll.mask)
        for t in range(roll.num_new):
            after = process.update(before[:, t], act[:, t].numpy(), obs[:, t].numpy())
            fresh = process.update(np.full((4, 3), 1 / 3), np.zeros(4, int), obs[:, t].numpy())
            expected = np.where(mask[:, t, None], after, fresh)
            assert roll.info["belief"][:, t + 1].numpy() == pytest.approx(expected)
        assert previous is None or torch.equal(previous[:, -1], roll.info["belief"][:, 0])
        previous = roll.info["belief"]
        assert roll[:2].info["belief"].shape == (2, 9, 3)
    assert not mask.all()
    stream.close()


@pytest.mark.parametrize(
    ("id", "given", "words"),
    [
        ("Mess3", {"x": 0.7}, "env.kwargs.x=0.7 env.kwargs.a=0.85: allowed are"),
        ("Mess3", {"max_episode_steps": 0}, "env.kwargs.max_episode_steps=0: allowed"),
        ("Even", {"x": 0.1}, "gymnasium cannot create it with .*unexpected keyword argument 'x'"),
        ("Mess4", {}, "close matches are.*worldmodel/Mess3-v0"),
    ],
)
def test_bad_input(id: str, given: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_env(f"worldmodel/{id}-v0", num_envs=2, vectorization="vector_entry_point", **given)


def test_bad_tensors() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        HMM(np.full((1, 2, 2, 2), 0.3))
    with pytest.raises(ValueError, match=r"allowed is \(action, token, from, to\)"):
        HMM(np.full((2, 2, 2), 0.25))
    with pytest.raises(ValueError, match="beliefs at position"):
        mess3().cross_entropy(12, most=1000)
