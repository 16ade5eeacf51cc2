"""Sections of the report on cases with a known answer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from helpers.rollouts import hand_made
from omegaconf import OmegaConf
from torch import Tensor

from worldmodel.analysis.report.baselines import Affine, one_hot
from worldmodel.analysis.report.calibration import Calibration
from worldmodel.analysis.report.context import EvaluationContext
from worldmodel.analysis.report.cut_memory import cut
from worldmodel.analysis.report.head_metrics import auc, end_head, reward_head
from worldmodel.analysis.report.open_loop import Window, open_loop
from worldmodel.analysis.report.recorded import RecordedRollouts, grouped, spread
from worldmodel.analysis.report.sections.curiosity import (
    by_event,
    first_visits,
    heat_map,
    in_episode,
    over_training,
    places,
)
from worldmodel.analysis.report.sections.memory import doubling, errors, horizon, horizon_by_context
from worldmodel.analysis.report.sections.prediction import by_action, null_action
from worldmodel.analysis.report.sections.returns import returns
from worldmodel.analysis.report.skill import skill
from worldmodel.analysis.report.summary import coverage, summary
from worldmodel.analysis.report.transitions import Transitions
from worldmodel.errors import ConfigError
from worldmodel.learner.run_episodes import EpisodeStats


def transitions(**given: list) -> Transitions:
    """Columns that aren't given are 0; the first given one sets the length."""
    count = len(next(iter(given.values())))
    blank = {"episode": np.zeros(count, int), "act": np.zeros(count, int), "place": np.zeros((count, 0))}
    for name in ("rew_ext", "rew_int", "skill_error", "skill_base", "rew_hat", "end_hat"):
        blank[name] = np.zeros(count)
    blank |= {name: np.zeros(count, bool) for name in ("end", "trunc")}
    return Transitions(**(blank | {k: np.array(v) for k, v in given.items()}))


# --- episodes


def test_a_behaviour_is_played_once(context: EvaluationContext):
    assert context.episode_set("sampled") is context.episode_set("sampled")
    assert context.episode_set("sampled") is not context.episode_set("sampled", sticky=0.5)
    assert not np.array_equal(context.episode_set("random").steps.act, context.episode_set("sampled").steps.act)


def test_transitions_are_those_of_the_tally(context: EvaluationContext):
    played = context.episode_set("sampled")
    steps, stats = played.steps, played.stats
    np.testing.assert_array_equal(np.bincount(steps.episode), stats.length)
    np.testing.assert_allclose(np.bincount(steps.episode, steps.rew_ext), stats.ret, rtol=1e-5)
    np.testing.assert_allclose(np.bincount(steps.episode, steps.rew_int), stats.rew_int, rtol=1e-4)
    assert (np.diff(steps.episode) >= 0).all() and steps.age.max() == stats.length.max() - 1
    over = steps.end | steps.trunc
    np.testing.assert_array_equal(steps.age[over] + 1, stats.length)  # the last one of each ends it
    assert 1 <= coverage(played) <= 6


def test_places_are_where_transitions_led(context: EvaluationContext):
    """A place changes by one cell where the agent goes forward, and by none with any other action."""
    steps = context.episode_set("random").steps
    same = (np.diff(steps.episode) == 0) & (steps.age[1:] > 0)
    moved = np.abs(np.diff(steps.place, axis=0)).sum(1)[same]
    assert set(moved) == {0, 1} and (steps.act[1:][same][moved == 1] == 2).all()


def test_starts_that_are_solved_already_are_refused():
    stats = EpisodeStats(4)
    stats.ret[:], stats.length[:], stats.solved[0] = [1, 0, 1, 1], [1, 1, 5, 2], 1
    found = summary(SimpleNamespace(stats=stats, steps=transitions(episode=[0, 1, 2, 3])), 0.5, 0)
    assert found["refused"] == 1 and found["episodes"] == 3
    assert found["return_mean"] == found["success"] == pytest.approx(2 / 3, abs=1e-6)
    assert found["length"] == pytest.approx(8 / 3, abs=1e-6) and found["coverage"] is None
    stats = EpisodeStats(2)
    stats.solved[:] = 1
    with pytest.raises(ConfigError, match="episodes=2: all of them begin solved"):
        summary(SimpleNamespace(stats=stats, steps=transitions(episode=[0, 1])), 0.5, 0)


@pytest.mark.parametrize(
    ("env", "sticky", "expected"),
    [
        ({}, 0.25, {"greedy": {}, "sampled": {}, "random": {}, "sampled_sticky_0.25": {"sticky": 0.25}}),
        ({}, 0.0, {"greedy": {}, "sampled": {}, "random": {}}),
        ({"sticky": 0.1}, 0.25, {"greedy": {}, "sampled": {}, "random": {}, "sampled_sticky_0": {"sticky": 0.0}}),
        (
            {"levels": 9},
            0.0,
            {"greedy": {}, "sampled": {}, "random": {}, "sampled_held_out_levels": {"held_out": True}},
        ),
    ],
)
def test_behaviours(
    context: EvaluationContext, monkeypatch: pytest.MonkeyPatch, env: dict, sticky: float, expected: dict
):
    """Sticky actions where the agent had none, and none where it had them; other levels where it knew some."""
    asked, played = [], context.episode_set("sampled")
    monkeypatch.setattr(
        EvaluationContext, "episode_set", lambda self, policy, **changes: asked.append((policy, changes)) or played
    )
    monkeypatch.setattr(context, "cfg", OmegaConf.create({"env": env, "data": {"success": 0.0}}))
    section = returns(context, sticky)
    assert list(section.numbers) == list(expected) and asked == [
        (name.split("_")[0], changes) for name, changes in expected.items()
    ]


# --- prediction


class Still:
    """Stands in for a world model's scales: units as they are."""

    delta_scale = SimpleNamespace(std=torch.ones(2))

    @staticmethod
    def latent_scale(y: Tensor) -> Tensor:
        return y


def linear_world(noise: float = 0.0) -> RecordedRollouts:
    """Latents that rotate and are shifted by one of two actions: a linear map, which ridge regression can fit."""
    generator = torch.Generator().manual_seed(0)
    act = torch.randint(0, 2, (8, 33), generator=generator)
    turn, push = torch.tensor([[0.0, -0.3], [0.3, 0.0]]), torch.tensor([[0.5, 0.0], [0.0, -0.5]])
    y = [torch.randn(8, 2, generator=generator)]
    for t in range(32):
        y.append(y[-1] + 0.5 * (y[-1] @ turn.T) + push[act[:, t]] + noise * torch.randn(8, 2, generator=generator))
    y, no = torch.stack(y, 1), torch.zeros(8, 33, dtype=torch.bool)
    mask = ~no
    mask[:, -1] = False
    seq = hand_made(act=act, valid=~no, mask=mask).as_sequences()
    return RecordedRollouts(Window(seq, y, y), torch.arange(8)[:, None].expand(8, 32), ~no[:, 1:], {}, y[:, :-1], None)


def test_linear_model_knows_a_linear_world():
    recorded = linear_world()
    window, space = recorded.window, gym.spaces.Discrete(2)
    linear, mean = (Affine(Still(), space, x).fit([recorded]) for x in (True, False))
    start, act, episode = window.y[:, 0], window.seq.act[:, :10], recorded.number[:, 0]
    scale = window.y[:, 1:11].square().mean()
    assert (linear.path(start, act, episode) - window.y[:, 1:11]).square().mean() < 0.01 * scale  # the penalty's bias
    odd = (window.y[1::2, 1:] - window.y[1::2, :-1]).flatten(0, 1).mean(0)
    torch.testing.assert_close(mean.path(start, act, episode)[0, 3], start[0] + 4 * odd)  # of the other parity


def test_baselines_never_see_what_they_predict():
    recorded = linear_world(noise=1.0)
    fitted = Affine(Still(), gym.spaces.Discrete(2), linear=True).fit([recorded]).weights
    recorded.window.y[::2] *= 3  # the even episodes, which the odd ones are predicted from
    again = Affine(Still(), gym.spaces.Discrete(2), linear=True).fit([recorded]).weights
    assert again[0].equal(fitted[0]) and not again[1].equal(fitted[1])
    recorded.counted = recorded.counted & (recorded.number == 0)
    alone = Affine(Still(), gym.spaces.Discrete(2), linear=True).fit([recorded]).weights
    assert alone[0].isnan().all() and alone[1].isfinite().all()  # nobody else to learn from


def test_one_hot():
    act = torch.tensor([[1, 0], [0, 2]])
    expected = torch.tensor([[0.0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]).double()
    assert one_hot(gym.spaces.MultiDiscrete([2, 3]), act).equal(expected)
    assert one_hot(gym.spaces.Discrete(3), torch.tensor([2])).equal(torch.tensor([[0.0, 0, 1]]).double())


def test_joined_windows_give_the_same_errors(context: EvaluationContext):
    recorded, model = context.episode_set("sampled").recorded, context.agent.model
    assert len(recorded) > 1
    (joined,) = grouped(recorded)
    apart = [open_loop(model, k.window, [0, 3], [1], k.number, k.counted)[1] for k in recorded]
    whole = open_loop(model, joined.window, [0, 3], [1], joined.number, joined.counted)[1]
    each = np.concatenate([part.by["model"] for part in apart])
    np.testing.assert_allclose(np.sort(whole.by["model"]), np.sort(each), rtol=1e-4)


def test_starts_are_spread(context: EvaluationContext):
    recorded = context.episode_set("sampled").recorded
    assert spread(recorded, 1) == [0] and spread(recorded, 10**6) == list(range(8))


def test_calibration_of_true_and_of_wrong_variances():
    generator = torch.Generator().manual_seed(0)
    logvar = torch.rand(20_000, 4, generator=generator) * 6 - 5
    error = torch.randn(20_000, 4, generator=generator) * torch.exp(0.5 * logvar)
    true, narrow = Calibration(), Calibration()
    for half in (slice(0, 5000), slice(5000, None)):
        true.add(error[half], logvar[half])
        narrow.add(2 * error[half], logvar[half])
    good, bad = true.to_dict(), narrow.to_dict()
    assert good["samples"] == 80_000 and good["ece"] < 0.005 and good["ence"] < 0.02
    assert good["z_square"] == pytest.approx(1, abs=0.02) and bad["z_square"] == pytest.approx(4, abs=0.08)
    assert good["coverage"]["0.50"] == pytest.approx(0.5, abs=0.01)
    assert bad["coverage"]["0.50"] == pytest.approx(0.264, abs=0.01)  # P(|z| < 0.6745 / 2)
    assert bad["ence"] == pytest.approx(1, abs=0.02) and bad["ece"] > 0.15
    assert Calibration().to_dict()["ece"] is None


def test_auc():
    score, event = np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, True, False, True])
    assert auc(score, event) == pytest.approx(3.5 / 4)  # one tie
    assert auc(-score, event) == pytest.approx(0.5 / 4)
    assert auc(score, np.ones(4, bool)) is None


def test_heads():
    steps = transitions(end=[True, False, False, False], end_hat=[0.5, 0.0, 0.0, 0.0], rew_ext=[1.0, 0, 0, 0])
    assert end_head(steps) == {"rate": 0.25, "auc": 1.0, "brier": 0.0625, "brier_base": 0.1875}
    steps.rew_hat = np.array([0.5, 0.0, 0.0, 0.0])
    found = reward_head(steps)  # truth 1 0 0 0, variance 3/16, error 1/16
    assert found["auc"] == 1 and found["mse"] == pytest.approx(1 / 16) and found["r2"] == pytest.approx(2 / 3, abs=1e-6)
    assert reward_head(transitions(rew_ext=[0.0, 0.0]))["r2"] is None


def test_skill_by_action():
    steps = transitions(
        episode=[0, 0, 1, 1], act=[0, 1, 1, 1], skill_error=[1.0, 0.0, 1.0, 2.0], skill_base=[2.0, 4.0, 1.0, 1.0]
    )
    found = by_action(steps, gym.spaces.Discrete(3), 0)
    assert found["0"]["skill"] == 0.5 and found["1"]["skill"] == 0.5 and found["2"]["skill"] is None
    assert [x["share"] for x in found.values()] == [0.25, 0.75, 0.0]
    nothing = null_action(steps, 1, gym.spaces.Discrete(3), 0)
    assert nothing["skill"] == 0.5 and nothing["error"] == 1.0 and nothing["change"] == 2.0
    assert null_action(steps, None, gym.spaces.Discrete(3), 0) is None
    assert by_action(steps, gym.spaces.Box(-1, 1, (1,)), 0) is None


# --- curiosity


def test_curiosity_by_event():
    steps = transitions(
        episode=[0, 0, 0, 1],
        act=[0, 1, 1, 1],
        rew_int=[3.0, -1.0, 1.0, 0.0],
        rew_ext=[0.0, 0.0, 1.0, 0.0],
        end=[False, False, True, False],
        place=[[1, 1], [1, 1], [1, 2], [1, 1]],
    )
    found = by_event(steps, gym.spaces.Discrete(2))
    assert found["rewarded"] == found["end"] == {"share": 0.25, "rew_int": 1.0, "share_of_rew_int": 0.25}
    assert found["action 0"] == {"share": 0.25, "rew_int": 3.0, "share_of_rew_int": 0.75}
    assert found["action 1"] == {"share": 0.75, "rew_int": 0.0, "share_of_rew_int": 0.25}
    assert found["truncated"]["rew_int"] is None
    np.testing.assert_array_equal(first_visits(steps), [True, False, True, True])
    assert found["new place in the episode"]["share_of_rew_int"] == 1.0
    assert places(steps) == [
        {"place": [1.0, 1.0], "visits": 3, "rew_int": round(2 / 3, 6)},
        {"place": [1.0, 2.0], "visits": 1, "rew_int": 1.0},
    ]
    assert places(transitions(episode=[0])) is None


def test_curiosity_within_an_episode():
    steps = transitions(episode=[0] * 20 + [1] * 2, rew_int=[*np.repeat(np.arange(10.0), 2), 4.0, 4.0])
    assert in_episode(steps) == [2.0, *np.arange(1.0, 10.0)]
    assert in_episode(transitions(episode=[0], rew_int=[0.5])) == [0.5, *[None] * 9]


def test_curiosity_over_training(tmp_path: Path):
    (tmp_path / "metrics.csv").write_text(
        "env_steps,rew_int,return_ext\n" + "".join(f"{i},{i / 2},\n" for i in range(200))
    )
    found = over_training(tmp_path / "checkpoints" / "last.ckpt")
    assert found.keys() == {"env_steps", "rew_int"}
    assert len(found["env_steps"]) == 50 and found["env_steps"][-1] == 199 and found["rew_int"][-1] == 99.5
    assert over_training(tmp_path / "elsewhere" / "checkpoints" / "last.ckpt") is None


def test_heat_maps_share_their_places():
    """A cell that one entry alone has been to is in the frame of the other, too."""
    here, there = ([[0, 0], [0, 0]], [[2, 1]])
    low, high = transitions(episode=[0, 0], rew_int=[1.0, 3.0], place=here), transitions(episode=[0], place=there)
    near = transitions(episode=[0], place=here[:1])
    apart, together = (heat_map({"a": low, "b": other})._repr_png_() for other in (high, near))
    assert apart.startswith(b"\x89PNG") and apart != together
    mean = transitions(episode=[0], rew_int=[2.0], place=here[:1])
    assert heat_map({"a": mean, "b": high})._repr_png_() == apart  # the mean of 1 and 3


# --- memory


def test_cut_memory(context: EvaluationContext):
    """Errors equal those of acting where the cut context is the whole one, and differ elsewhere."""
    model, part = context.agent.model, context.episode_set("sampled").recorded[1]
    window = part.window
    with torch.no_grad():
        acting = model.predict_and_compare(part.h, window.seq.act[:, -9:-1], window.y, window.y)
    for context in (0, 2, 4):
        starts = list(range(8))
        error, base = errors(model, part, starts, cut(model, part, starts, context))
        assert len(error) == int(part.real.sum()) > 10
        np.testing.assert_allclose(base, acting.skill_base[part.real].numpy(), rtol=1e-5)
        whole = (window_age(window) <= context)[part.real].numpy()
        same = np.isclose(error, acting.skill_error[part.real].numpy(), rtol=1e-4)
        assert same[whole].all() and not same[~whole].any() and 0 < whole.sum() < len(whole)


def window_age(window: Window) -> Tensor:
    """(N, T): number of earlier rows of the same episode in the window."""
    episode, valid = window.seq.episode[:, :-1], window.seq.valid[:, :-1]
    same = (episode[:, :, None] == episode[:, None, :]) & valid[:, None, :]
    return same.tril(-1).sum(2)[:, -window.num_new :]


def test_doubling():
    assert doubling(0) == [0] and doubling(1) == [0, 1] and doubling(6) == [0, 1, 2, 4, 6]
    assert doubling(64) == [0, 1, 2, 4, 8, 16, 32, 64]


def test_how_far_back_the_memory_reaches():
    """A memory that equals the latent of two steps ago: R² is 1 for this lag and 0 for the others."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(20, 33, 3, generator=generator)
    h = torch.cat([torch.zeros(20, 2, 3), z[:, :30]], 1)
    no = torch.zeros(20, 33, dtype=torch.bool)
    seq = hand_made(act=no.long(), valid=~no, mask=~no, num_new=32).as_sequences()
    recorded = RecordedRollouts(Window(seq, z, z), torch.arange(20)[:, None].expand(20, 32), ~no[:, 1:], {}, h, None)
    found = horizon([recorded], most=4, seed=0)
    memory, present = found["memory"], found["present latent alone"]
    assert list(memory) == [0, 1, 2, 4] and memory[2].score > 0.999 and present[0].score > 0.999
    assert max(memory[k].score for k in (0, 1, 4)) < 0.1 and max(present[k].score for k in (1, 2, 4)) < 0.1
    recorded.number = recorded.number * 0
    assert horizon([recorded], most=4, seed=0) is None  # one episode: nothing to hold out


def test_how_far_a_cut_memory_reaches():
    """A memory that keeps the oldest latent it may read and nothing else: with c steps of context, the one of lag c."""
    z = torch.randn(20, 37, 3, generator=torch.Generator().manual_seed(0))  # 4 rows of context, 32 new, one to close
    no = torch.zeros(20, 37, dtype=torch.bool)
    seq = hand_made(act=no.long(), valid=~no, mask=~no, num_new=32).as_sequences()
    number = torch.arange(20)[:, None].expand(20, 32)
    recorded = RecordedRollouts(Window(seq, z, z[:, 4:]), number, ~no[:, 5:], {}, torch.zeros(20, 32, 3), None)
    oldest = SimpleNamespace(encode_sequence=lambda z, seq: z.flip(1))
    found = horizon_by_context([recorded], oldest, [0, 1, 4], seed=0)
    for context, curve in found.items():
        assert list(curve) == [0, 1, 2, 4, 8] and curve[context].score > 0.999
        assert max(score.score for lag, score in curve.items() if lag != context) < 0.1
    recorded.number = number * 0
    with pytest.raises(ValueError, match="no lag has 200 rows of 2 episodes"):
        horizon_by_context([recorded], oldest, [0], seed=0)


def test_skill_of_a_short_sample():
    assert skill(np.empty(0), np.empty(0), np.empty(0, int), 0) == {"skill": None, "ci": None, "samples": 0}
    assert skill(np.array([np.nan]), np.ones(1), np.zeros(1, int), 0)["skill"] is None
