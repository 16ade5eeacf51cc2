"""Signals with a memory of the episode: by hand, over resets and cuts, and as they learn."""

from __future__ import annotations

import csv
from math import isfinite, log, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from tiny import EASY, clone, tiny_agent, tiny_config
from torch import Tensor, nn
from worlds import Plain, cut, rollout, signal, vectors, views

from worldmodel.build import build_env
from worldmodel.checkpoint import read_checkpoint
from worldmodel.curiosity import DEIR, E3B, ETD, NGU, RIDE, Count, Curiosity, EnvState, NovelD
from worldmodel.curiosity.deir import others
from worldmodel.curiosity.etd import contrast, quasimetric, sample_later
from worldmodel.losses import masked_mean
from worldmodel.moments import Moments
from worldmodel.rollouts import Tally, freeze, play
from worldmodel.train import train

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
PLANE = Box(0, 99, (2,), np.uint8)
CORNERS = vectors((0, 0), (3, 4), (0, 0), (3, 4), (3, 10))


@pytest.fixture(params=KINDS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def small(name: str, envs: int = 1, seed: int = 0, **options) -> Curiosity:
    torch.manual_seed(seed)
    return signal(KINDS[name], envs=envs, **SMALL[name] | options)


@torch.no_grad()
def pay(curiosity: Curiosity, roll) -> Tensor:
    return curiosity.reward(roll, None)


def settle(curiosity: Curiosity) -> Curiosity:
    """Running statistics as in evaluation: no rollout moves them any more."""
    for moments in curiosity.modules():
        if isinstance(moments, Moments):
            moments.horizon = float("inf")
            moments.count.fill_(moments.horizon)
    return curiosity


# by hand


def test_ride_by_hand() -> None:
    ride = signal(RIDE, PLANE, Plain)
    expected = [[5.0, 5 / sqrt(2), 5 / sqrt(2), 6.0]]
    torch.testing.assert_close(pay(ride, rollout(CORNERS)), torch.tensor(expected))


class Novelty(nn.Module):
    """Mean squared errors that are the observation's first number."""

    def update(self, roll) -> None:
        pass

    def forward(self, obs: Tensor) -> Tensor:
        return obs[..., 0].float()


def test_noveld_by_hand() -> None:
    noveld = signal(NovelD, PLANE, Plain, dim=4, alpha=0.5)
    noveld.distillation = Novelty()
    # norms sqrt(4 x): 2, 4, 0, 2, 2
    roll = rollout(vectors((1, 0), (4, 0), (0, 0), (1, 0), (1, 1)))
    expected = [[3.0, 0.0, 0.0, 1.0]]  # 4 - 1; 0 - 2 is below 0; met before; 2 - 1
    torch.testing.assert_close(pay(noveld, roll), torch.tensor(expected))


def test_e3b_by_hand() -> None:
    e3b = signal(E3B, PLANE, Plain, ridge=1.0)
    roll = rollout(vectors((1, 0), (2, 0), (0, 3), (1, 1)))
    # C = diag(2, 1), diag(6, 1), diag(6, 10)
    torch.testing.assert_close(pay(e3b, roll), torch.tensor([[4 / 2, 9.0, 1 / 6 + 1 / 10]]))
    with pytest.raises(ValueError, match=r"curiosity.ridge=0"):
        signal(E3B, PLANE, Plain, ridge=0.0)
    with pytest.raises(ValueError, match=r"curiosity.dim=64: makes 1200 features"):
        signal(E3B, Box(0, 9, (1200,), np.uint8), Plain)


def test_ngu_by_hand() -> None:
    ngu = signal(NGU, PLANE, Plain, neighbours=2, eps=0.1, cluster=0.5, c=0.5, max_similarity=1.4)
    ngu.distillation = Novelty()
    roll = rollout(vectors((0, 0), (3, 4), (0, 4), (0, 0)))
    # squared distances of the two nearest: 25 | 9, 16 | 0, 16
    m = (25 + 9 + 16 + 0 + 16) / 5
    near = [[25 / m], [9 / m, 16 / m], [0.0, 16 / m]]
    roots = [sqrt(sum(0.1 / (max(d - 0.5, 0.0) + 0.1) for d in row)) + 0.5 for row in near]
    assert roots[2] > 1.4 > max(roots[:2])
    # errors 3, 0, 0: mean 1, std sqrt 2
    torch.testing.assert_close(pay(ngu, roll), torch.tensor([[(1 + sqrt(2)) / roots[0], 1 / roots[1], 0.0]]))
    ngu = signal(NGU, PLANE, Plain, limit=2.0)
    ngu.distillation = Novelty()
    torch.testing.assert_close(ngu.alpha(roll), torch.tensor([[2.0, 1.0, 1.0]]))


def test_deir_by_hand() -> None:
    torch.manual_seed(0)
    deir = signal(DEIR, PLANE, Plain)
    x = CORNERS[0].float()
    states = deir.gru.cells[0](x[:, None])[0][:, 0].detach()  # torch's own pass over the whole episode
    tau = torch.cat([torch.zeros(1, 2), states])  # before each row
    expected = [
        min(float((x[i] - x[t + 1]).square().sum() / ((tau[i] - tau[t + 1]).norm() + 1e-6)) for i in range(t + 1))
        for t in range(4)
    ]
    assert expected[1] == expected[2] == 0
    torch.testing.assert_close(pay(deir, rollout(CORNERS)), torch.tensor([expected]))


def test_etd_by_hand() -> None:
    etd = signal(ETD, PLANE, Plain, width=2)
    etd.embed = nn.Identity()
    # max(x1 - y1, 0) + |x2 - y2|, from each earlier one
    roll = rollout(vectors((5, 0), (3, 1), (9, 5), (5, 0)))
    expected = [[2 + 1.0, 4.0, 0.0]]  # from the first; from the second, 0 + 4; from the first, 0
    torch.testing.assert_close(pay(etd, roll), torch.tensor(expected), atol=2e-4, rtol=0)
    for options, words in (({"width": 3}, "width=3"), ({"gamma": 1.0}, "gamma=1.0"), ({"pairs": 1}, "pairs=1")):
        with pytest.raises(ValueError, match=rf"curiosity.{words}"):
            signal(ETD, PLANE, Plain, **options)


def test_quasimetric() -> None:
    torch.manual_seed(0)
    a, b, c = torch.randn(3, 1000, 8)
    assert (quasimetric(a, c) <= quasimetric(a, b) + quasimetric(b, c) + 1e-3).all()
    assert not torch.allclose(quasimetric(a, b), quasimetric(b, a))
    assert (quasimetric(a, a) < 2e-4).all()
    x, y = torch.tensor([5.0, 1.0, 0.0, 0.0]), torch.tensor([3.0, 2.0, 3.0, 4.0])
    torch.testing.assert_close(quasimetric(x, y), torch.tensor(2 + 5.0))


def test_later_rows_are_geometric_and_of_the_same_episode() -> None:
    torch.manual_seed(0)
    episode = torch.tensor([[0, 0, 0, 0, 1, 1, 2]]).expand(20000, -1)
    later = sample_later(episode, 0.5)
    assert (later[:, 2] == 3).all() and (later[:, 3] == 3).all() and (later[:, 4] == 5).all()
    share = (later[:, :1] == torch.arange(7)).float().mean(0)
    torch.testing.assert_close(share, torch.tensor([0, 4 / 7, 2 / 7, 1 / 7, 0, 0, 0]), atol=0.02, rtol=0)


def test_contrast_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0, 9.0], [1.0, 3.0, 9.0], [9.0, 9.0, 9.0]])
    got = contrast(logits, torch.tensor([True, True, False]), 0.1)[:2]
    rows = [log(np.exp(2) + 1), log(np.exp(1) + np.exp(3))]
    columns = [log(np.exp(2) + np.exp(1)), log(1 + np.exp(3))]
    expected = [0.5 * (a + b) - p + 0.1 * a**2 for a, b, p in zip(rows, columns, (2, 3), strict=True)]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float32))


def test_the_contrast_of_a_few_pairs_is_that_of_all() -> None:
    torch.manual_seed(0)
    roll = rollout(views([list(range(41))]), [[0] * 20 + [1] * 21])
    etd = small("etd", pairs=8)
    few = torch.stack([etd.losses(roll, None)["etd"] for _ in range(20)])
    mask = roll.tail(roll.mask)
    assert ((few != 0).sum((1, 2)) == 8).all() and (few[:, ~mask] == 0).all()
    assert 0.5 * log(8) < masked_mean(few.mean(0), mask) < 2 * log(8)  # what 8 candidates cost, not 8 / 39 of it
    nothing = rollout(views([[1, 2, 3]]), [[0, 1, 2]])
    loss = etd.losses(nothing, None)["etd"]
    loss.sum().backward()
    assert (loss == 0).all() and all(p.grad.isfinite().all() for p in etd.parameters())


def test_other_observations_differ() -> None:
    torch.manual_seed(0)
    obs = views([[1, 1, 2, 3], [1, 1, 1, 4]])
    mask = torch.tensor([[True, True, True, False], [True, True, True, False]])
    index, differs = others(obs, mask)
    flat = obs.flatten(0, 1)
    assert torch.equal((flat[index] != obs).flatten(2).any(-1), differs) and differs.any()
    assert not torch.isin(index, torch.tensor([3, 7])).any(), "masked rows are not drawn"
    index, differs = others({"a": obs[:, :2], "b": torch.zeros(2, 2)}, mask[:, :2])
    assert not differs.any()
    assert others(obs, torch.zeros_like(mask))[0].shape == mask.shape


# what they share


def test_no_reward_over_a_reset(name: str) -> None:
    """What was seen in an episode is nothing to the next one, and its end is not paid with the next beginning."""
    path, episode = [[1, 2, 3, 4, 5, 1, 2, 6]], [[0, 0, 0, 0, 1, 1, 1, 1]]
    first, second = (settle(small(name)) for _ in range(2))
    a = pay(first, rollout(views(path), episode))
    b = pay(second, rollout(views([[7, 5, 2, 6, *path[0][4:]]]), episode))
    torch.testing.assert_close(a[:, 4:], b[:, 4:])
    assert a.isfinite().all() and (a[:, 4:] > 0).any()
    if name in ("e3b", "ngu", "deir", "etd"):
        assert a[0, 3] == 0


def test_a_masked_step_is_paid_nothing(name: str) -> None:
    agent, data, _ = tiny_agent(f"curiosity={name}", *EASY)
    for _ in range(2):
        roll = data.collector.collect()
        agent.score(roll)
        mask = roll.tail(roll.mask)
        assert not mask.all() and (roll.rew_int[~mask] == 0).all() and (roll.rew_int[mask] != 0).any()
    data.teardown("fit")


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
    assert not torch.allclose(pay(alone, cut(roll, 8, 16)), expected[:, 8:]), "the first half is remembered"


def test_the_second_lap_pays_less(name: str) -> None:
    lap = [0, 1, 2, 3, 4, 5, 6, 7]
    roll = rollout(views([[*lap, *lap, 0]]))
    reward = pay(settle(small(name)), roll)[0]
    assert reward[8:].mean() < 0.75 * reward[:7].mean()


@pytest.mark.parametrize("scope", ["lifelong", "product"])
def test_what_all_episodes_had_pays_less(scope: str) -> None:
    count, roll = small("count", scope=scope), rollout(views([[0, 1, 2, 3]]))
    first = pay(count, roll)
    count.reset(1)
    torch.testing.assert_close(pay(count, roll), first / sqrt(2))


@pytest.mark.parametrize("name", ["noveld", "ngu"])
def test_what_was_distilled_pays_less(name: str) -> None:
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
    """Let the signal learn these transitions; what its losses came to."""
    optimizer = torch.optim.Adam([p for p in curiosity.parameters() if p.requires_grad], 3e-3)
    history = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = sum(masked_mean(x, roll.tail(roll.mask)) for x in curiosity.losses(roll, None).values())
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    return history


def test_etd_learns_how_far_apart_places_are() -> None:
    etd = small("etd", dim=32, hidden=64, width=32, gamma=0.9)
    roll = rollout(views([list(range(20))]))
    fit(etd, roll, 150)
    with torch.no_grad():
        phi = etd.embed(etd.features(roll.obs[0]))
        d = quasimetric(phi[:, None], phi[None])  # (20, 20): from row i to row j
    steps = torch.arange(20)[None] - torch.arange(20)[:, None]
    mean = [float(d[steps == k].mean()) for k in (1, 2, 3, 5, 8, 12, 16)]
    assert mean == sorted(mean) and mean[-1] > 4 * mean[0]
    assert d[steps == -3].mean() > 2 * mean[2], "there is no way back"


def test_deir_learns_what_comes_next() -> None:
    torch.manual_seed(0)
    deir = small("deir")
    loss = fit(deir, rollout(views([list(range(12))] * 4)), 150)
    assert 0.6 < loss[0] < 0.8 and np.mean(loss[-10:]) < 0.3  # ln 2 for a guess


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


def test_episodes_played_again_are_paid_again(name: str) -> None:
    """A frozen agent's next evaluation begins with no memory of the last one."""
    agent, data, cfg = tiny_agent(f"curiosity={name}", *EASY)
    for _ in range(2):
        agent.score(data.collector.collect())
    data.teardown("fit")
    freeze(agent, 3)
    before = {k: v.clone() for k, v in agent.curiosity.state_dict().items()}
    paid = []
    for _ in range(2):
        tally, env = Tally(3), build_env(cfg, seed=100, num_envs=3)
        torch.manual_seed(0)
        list(play(agent, env, tally, context=4, horizon=8, greedy=False))
        env.close()
        paid.append(tally.rew_int_raw)
    np.testing.assert_array_equal(*paid)
    assert (paid[0] > 0).any()
    memories = [k for k, module in agent.curiosity.named_modules() if isinstance(module, EnvState)]
    for key, value in agent.curiosity.state_dict().items():
        if not key.startswith(tuple(memories)):
            assert value.equal(before[key]), key


def test_gradients_stay_in_the_signal(name: str) -> None:
    agent, data, _ = tiny_agent(f"curiosity={name}", *EASY)
    roll = clone(data.collector.collect())
    data.teardown("fit")
    losses = agent.curiosity.losses(roll, agent.model(roll))
    assert all(x.shape == roll.logp.shape for x in losses.values()) and bool(losses) == (name != "count")
    if losses:
        sum(masked_mean(x, roll.tail(roll.mask)) for x in losses.values()).backward()
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


METHODS = [*KINDS, "weighted_sum", "product", "random"]


@pytest.mark.parametrize("method", METHODS)
def test_training(method: str, tmp_path: Path) -> None:
    """Two updates through the real trainer, with sequences from the replay."""
    cfg = tiny_config(f"curiosity={method}", "data.replay_batch=1", "data.replay_capacity=8", *EASY)
    cfg.run_dir, cfg.total_steps = str(tmp_path), 64
    assert train(cfg)["status"] == "done"
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = {k: float(v) for k, v in rows[-1].items() if v and k not in ("success", "return_ext", "length")}
    assert len(rows) == 2 and all(isfinite(x) for x in numbers.values())
    assert (numbers["rew_int_raw"] != 0) == (method != "random")
    losses = {
        "ride": {"loss_ride_inverse", "loss_ride_forward"},
        "noveld": {"loss_noveld"},
        "e3b": {"loss_e3b_inverse"},
        "ngu": {"loss_ngu_inverse", "loss_ngu_rnd"},
        "deir": {"loss_deir"},
        "etd": {"loss_etd"},
        "product": {"loss_lifelong_rnd"},
    }
    assert losses.get(method, set()) <= numbers.keys()
    read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
