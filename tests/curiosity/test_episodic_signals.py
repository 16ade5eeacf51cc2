"""Signals with an episodic memory: resets, cuts of rollouts, checkpoints and learning."""

from __future__ import annotations

import csv
from math import isfinite, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.experience import collected
from helpers.rollouts import cut
from helpers.tiny import EASY, tiny_config
from helpers.worlds import pay, rollout, signal, views

from worldmodel.curiosity import DEIR, E3B, ETD, NGU, RIDE, Count, Curiosity, NovelD, PerEnvState
from worldmodel.curiosity.etd import quasimetric
from worldmodel.learner.run_episodes import EpisodeStats, freeze, run_episodes
from worldmodel.masked import masked_mean
from worldmodel.running_stats import RunningMeanStd
from worldmodel.training.build import build_env
from worldmodel.training.checkpoint import read_checkpoint
from worldmodel.training.run import train

KINDS = {"count": Count, "ride": RIDE, "noveld": NovelD, "e3b": E3B, "ngu": NGU, "deir": DEIR, "etd": ETD}
SMALL = {
    "count": {},
    "ride": {"dim": 8, "hidden": 16},
    "noveld": {"dim": 8},
    "e3b": {"dim": 8, "hidden": 16},
    "ngu": {"dim": 8, "hidden": 16, "neighbours": 3, "rnd_dim": 8},
    "deir": {"dim": 8, "hidden": 16},
    "etd": {"dim": 16, "hidden": 16, "width": 8},
}


@pytest.fixture(params=KINDS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def small(name: str, envs: int = 1, seed: int = 0, **options) -> Curiosity:
    torch.manual_seed(seed)
    return signal(KINDS[name], envs=envs, **SMALL[name] | options)


def settle(curiosity: Curiosity) -> Curiosity:
    """Fix the running statistics, as in evaluation."""
    for moments in curiosity.modules():
        if isinstance(moments, RunningMeanStd):
            moments.horizon = float("inf")
            moments.count.fill_(moments.horizon)
    return curiosity


def test_no_reward_over_a_reset(name: str) -> None:
    """Rewards do not depend on the episode before, and the transition between episodes has none."""
    path, episode = [[1, 2, 3, 4, 5, 1, 2, 6]], [[0, 0, 0, 0, 1, 1, 1, 1]]
    first, second = (settle(small(name)) for _ in range(2))
    a = pay(first, rollout(views(path), episode))
    b = pay(second, rollout(views([[7, 5, 2, 6, *path[0][4:]]]), episode))
    torch.testing.assert_close(a[:, 4:], b[:, 4:])
    assert a.isfinite().all() and (a[:, 4:] > 0).any()
    if name in ("e3b", "ngu", "deir", "etd"):
        assert a[0, 3] == 0


def test_a_masked_step_has_no_reward(name: str) -> None:
    agent, rollouts = collected(f"curiosity={name}", *EASY)
    for unscored in rollouts:
        roll = agent.score(unscored)
        mask = roll.new_steps(roll.mask)
        assert not mask.all() and (roll.rew_int[~mask] == 0).all() and (roll.rew_int[mask] != 0).any()


def test_where_a_rollout_is_cut_makes_no_difference(name: str) -> None:
    torch.manual_seed(1)
    path = torch.randint(0, 6, (3, 17)).tolist()
    episode = torch.randint(0, 3, (3, 17)).sort(1).values.tolist()
    roll = rollout(views(path), episode)
    whole, parts = (settle(small(name, envs=3)) for _ in range(2))
    expected = pay(whole, roll)
    got = torch.cat([pay(parts, cut(roll, a, b)) for a, b in ((0, 8), (8, 16))], 1)
    torch.testing.assert_close(got, expected)
    alone = settle(small(name, envs=3))
    assert not torch.allclose(pay(alone, cut(roll, 8, 16)), expected[:, 8:]), "rewards depend on the first half"


def test_the_second_lap_has_smaller_rewards(name: str) -> None:
    lap = [0, 1, 2, 3, 4, 5, 6, 7]
    roll = rollout(views([[*lap, *lap, 0]]))
    reward = pay(settle(small(name)), roll)[0]
    assert reward[8:].mean() < 0.75 * reward[:7].mean()


@pytest.mark.parametrize("scope", ["lifelong", "product"])
def test_observations_of_earlier_episodes_have_smaller_rewards(scope: str) -> None:
    count, roll = small("count", scope=scope), rollout(views([[0, 1, 2, 3]]))
    first = pay(count, roll)
    count.reset(1)
    torch.testing.assert_close(pay(count, roll), first / sqrt(2))


@pytest.mark.parametrize("name", ["noveld", "ngu"])
def test_distilled_observations_have_smaller_rewards(name: str) -> None:
    curiosity = small(name)
    old, new = rollout(views([list(range(20))])), rollout(views([list(range(20))], seed=1))
    fit(curiosity, old, 100)
    pay(curiosity, old)
    settle(curiosity)

    @torch.no_grad()
    def score(roll) -> float:
        curiosity.reset(1)
        return float((curiosity.alpha(roll) if name == "ngu" else pay(curiosity, roll)).mean())

    before, known = score(new), score(old)
    assert before > 1.2 * known
    fit(curiosity, new, 100)
    assert score(new) < before - 0.5 * (before - known)


def fit(curiosity: Curiosity, roll, steps: int) -> list[float]:
    """Train the signal on these transitions; return the loss of each step."""
    optimizer = torch.optim.Adam([p for p in curiosity.parameters() if p.requires_grad], 3e-3)
    history = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = sum(masked_mean(x, roll.new_steps(roll.mask)) for x in curiosity.losses(roll, None).values())
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    return history


def test_etd_learns_how_far_apart_places_are() -> None:
    etd = small("etd", dim=32, hidden=64, width=32, gamma=0.9)
    roll = rollout(views([list(range(20))]))
    fit(etd, roll, 400)
    with torch.no_grad():
        phi = etd.embed(etd.features(roll.obs[0]))
        d = quasimetric(phi[:, None], phi[None])  # (20, 20): from row i to row j
    steps = torch.arange(20)[None] - torch.arange(20)[:, None]
    mean = [float(d[steps == k].mean()) for k in (1, 2, 3, 5, 8, 12, 16)]
    assert mean == sorted(mean) and mean[-1] > 4 * mean[0]
    assert d[steps == -3].mean() > 2 * mean[2], "no way back exists"


def test_deir_learns_what_comes_next() -> None:
    torch.manual_seed(0)
    deir = small("deir")
    loss = fit(deir, rollout(views([list(range(12))] * 4)), 150)
    assert 0.6 < loss[0] < 0.8 and np.mean(loss[-10:]) < 0.3  # log 2 at chance


def test_a_signal_is_the_same_after_a_checkpoint(name: str, tmp_path: Path) -> None:
    roll = rollout(views([[1, 2, 3, 1, 4], [2, 2, 5, 6, 7]]), [[0] * 5, [0, 0, 1, 1, 1]])
    one, two = small(name, envs=2), small(name, envs=2, seed=5)
    pay(one, cut(roll, 0, 2))
    torch.save(one.state_dict(), tmp_path / "state.pt")
    two.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    torch.testing.assert_close(pay(two, cut(roll, 2, 4)), pay(one, cut(roll, 2, 4)), rtol=0, atol=0)


def test_evaluation_has_other_environments(name: str) -> None:
    curiosity = settle(small(name, envs=3).eval())
    roll = rollout(views([[1, 2, 3, 1, 4], [2, 2, 5, 6, 7]]))
    curiosity.reset(2)
    first = pay(curiosity, roll)
    curiosity.reset(2)
    assert torch.equal(pay(curiosity, roll), first)


def test_repeated_evaluations_have_equal_rewards(name: str) -> None:
    """An evaluation of a frozen agent begins with an empty episodic memory."""
    agent, rollouts = collected(f"curiosity={name}", *EASY)
    for roll in rollouts:
        agent.score(roll)
    freeze(agent, 3)
    before = {k: v.clone() for k, v in agent.curiosity.state_dict().items()}
    paid = []
    for _ in range(2):
        stats, env = EpisodeStats(3), build_env(tiny_config(*EASY), seed=100, num_envs=3)
        torch.manual_seed(0)
        list(run_episodes(agent, env, stats, context=4, rollout_length=8, greedy=False))
        env.close()
        paid.append(stats.rew_int_raw)
    np.testing.assert_array_equal(*paid)
    assert (paid[0] > 0).any()
    memories = [k for k, module in agent.curiosity.named_modules() if isinstance(module, PerEnvState)]
    for key, value in agent.curiosity.state_dict().items():
        if not key.startswith(tuple(memories)):
            assert value.equal(before[key]), key


def test_gradients_stay_in_the_signal(name: str) -> None:
    agent, (roll, _) = collected(f"curiosity={name}", *EASY)
    losses = agent.curiosity.losses(roll, agent.model(roll))
    assert all(x.shape == roll.logp.shape for x in losses.values()) and bool(losses) == (name != "count")
    if losses:
        sum(masked_mean(x, roll.new_steps(roll.mask)) for x in losses.values()).backward()
    learns = [p for p in agent.curiosity.parameters() if p.requires_grad]
    assert bool(learns) == bool(losses)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learns)
    assert all(p.grad is None for part in (agent.model, agent.policy) for p in part.parameters())


def test_losses_in_bfloat16(name: str) -> None:
    curiosity, roll = small(name, envs=2), rollout(views([[1, 2, 3, 1, 4], [2, 2, 5, 6, 7]]))
    torch.manual_seed(0)
    full = curiosity.losses(roll, None)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        half = curiosity.losses(roll, None)
    for key, x in full.items():
        torch.testing.assert_close(half[key].float(), x, atol=0.1, rtol=0.05)


EPISODIC = ["curiosity=weighted_sum"]  # count is one of its parts by default
for kind in KINDS.keys() - {"count"}:
    EPISODIC += [f"+curiosity@curiosity.parts.{kind}={kind}", f"+curiosity.weights.{kind}=1"]
LOSSES = [
    *("ride_ride_inverse", "ride_ride_forward", "noveld_noveld", "e3b_e3b_inverse"),
    *("ngu_ngu_inverse", "ngu_ngu_rnd", "deir_deir", "etd_etd"),
]
METHODS = {
    "all": (EPISODIC, LOSSES),
    "product": (["curiosity=product"], ["lifelong_rnd"]),
    "random": (["policy=random", "curiosity=none"], []),
}


@pytest.mark.parametrize("method", METHODS)
def test_training(method: str, tmp_path: Path) -> None:
    """Two updates through the real trainer, with sequences from the replay."""
    overrides, losses = METHODS[method]
    cfg = tiny_config(*overrides, "data.replay_batch=1", "data.replay_capacity=8", *EASY)
    cfg.run_dir, cfg.total_steps = str(tmp_path), 64
    assert train(cfg)["status"] == "done"
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    # nan before the first episode has ended, or where a gradient is all noise
    without_value = ("success", "return_ext", "length", "rooms_episode", "coverage_episode", "door_success")
    known = {k: v for k, v in rows[-1].items() if v and k not in without_value and not k.startswith("noise_scale")}
    numbers = {k: float(v) for k, v in known.items()}
    assert len(rows) == 3 and all(isfinite(x) for x in numbers.values())
    assert (numbers["rew_int_raw"] != 0) == (method != "random")
    assert {f"loss_{name}" for name in losses} <= numbers.keys()
    read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
