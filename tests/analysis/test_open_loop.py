"""Open-loop predictions in comparison with real steps."""

from __future__ import annotations

import pytest
import torch
from helpers.experience import lived
from helpers.tiny import EASY

from worldmodel.analysis.report.open_loop import Window, imagine, imagines_latents, open_loop
from worldmodel.analysis.report.skill import skill
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.learner.run_episodes import freeze
from worldmodel.types import Rollout

LONG = [EASY[0], "+env.max_episode_steps=100"]


def view(agent: CuriousAgent, roll: Rollout) -> Window:
    """The rollout as a frozen agent sees it."""
    freeze(agent, len(roll))
    return Window.of(agent.model, roll, agent.model.score_rollout(roll).y)


def test_one_step_ahead_is_the_training_metric():
    agent, roll = lived()
    logged = agent.metrics["delta_skill"]
    window = view(agent, roll)
    everywhere = torch.ones_like(roll.new_steps(roll.mask))
    errors = open_loop(agent.model, window, range(8), [1], roll.new_steps(roll.episode), everywhere)[1]
    assert len(errors.episode) == int(roll.new_steps(roll.mask).sum()) < 32  # some rows close an episode
    assert skill(errors.by["model"], errors.by["still"], errors.episode, 0)["skill"] == pytest.approx(logged, abs=1e-4)


@pytest.mark.parametrize(("share", "expected"), [(1.0, 1.0), (0.0, 0.0), (0.5, 0.75)])
def test_skill_by_hand(monkeypatch: pytest.MonkeyPatch, share: float, expected: float):
    """Latents that grow by 1 a step, predicted to grow by `share`: after h steps the error is h (1 - share)."""
    agent, roll = lived()
    window = view(agent, roll)
    window.y = torch.arange(9.0)[None, :, None].expand(4, 9, 8)
    monkeypatch.setattr(agent.model, "expected_delta", lambda pred, y: torch.full_like(y, share))
    number, counted = torch.arange(4)[:, None].expand(4, 8), torch.ones(4, 8, dtype=torch.bool)
    counted[3] = False
    found = open_loop(agent.model, window, [0, 2, 3, 6], [1, 3, 4, 8], number, counted)
    real = roll.new_steps(roll.mask)[:3]
    for h, errors in found.items():
        fits = sum(int(real[b, s : s + h].all()) for b in range(3) for s in (0, 2, 3, 6) if s + h <= 8)
        assert len(errors.episode) == fits
        ratio = errors.by["model"].sum() / errors.by["still"].sum() if fits else 1 - expected
        assert 1 - ratio == pytest.approx(expected, abs=1e-5)
    assert len(found[1].episode) > len(found[3].episode) > len(found[8].episode) == 0  # episodes of 6 steps at most


@pytest.mark.parametrize(
    ("target", "own"),
    [("vicreg", True), ("ema", True), ("ema target.normalise=l2", False), ("random", False), ("inverse", False)],
)
def test_open_loop_sees_nothing_of_the_future_but_actions(target: str, own: bool):
    name, *changes = target.split()
    agent, roll = lived(f"target={name}", *changes)
    window = view(agent, roll)
    assert imagines_latents(agent.model) == own
    path = imagine(agent.model, window, 2, 5)
    assert path.shape == (4, 5, *agent.model.target.shape)
    t = 4 + 2
    window.z[:, t + 1 :], window.y[:, 3:] = torch.nan, torch.nan
    assert imagine(agent.model, window, 2, 5).equal(path)
    window.seq.act[:, t + 2] = (window.seq.act[:, t + 2] + 1) % 7
    other = imagine(agent.model, window, 2, 5)
    assert other[:, :2].equal(path[:, :2]) and not other[:, 2].equal(path[:, 2])


def test_imagined_memory_is_the_real_one_where_predictions_are_right(monkeypatch: pytest.MonkeyPatch):
    agent, roll = lived("target=vicreg", easy=LONG)
    window, seen = view(agent, roll), []
    model = agent.model
    predict = model.predict
    monkeypatch.setattr(model, "predict", lambda h, act, y: seen.append(h) or predict(h, act, y))
    truth = iter(window.y[:, k + 1] - window.y[:, k] for k in range(1, 6))
    monkeypatch.setattr(model, "expected_delta", lambda pred, y: next(truth))
    path = imagine(model, window, 1, 5)
    torch.testing.assert_close(path, window.y[:, 2:7])
    with torch.no_grad():
        h = model.encode_sequence(window.z[:, :-1], roll)[:, 5:10]  # rows 4 + 1 and on
    goes_on = roll.mask[:, 5:10].all(1)
    assert goes_on.any()
    torch.testing.assert_close(torch.stack(seen, 1)[goes_on], h[goes_on], atol=1e-5, rtol=1e-4)
