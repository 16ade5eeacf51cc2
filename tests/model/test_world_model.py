"""World model: causality, scales of the errors, and losses by hand."""

from __future__ import annotations

import pytest
import torch
from helpers.rollouts import hand_made
from helpers.tiny import EASY, clone, tiny_agent

from worldmodel.masked import masked_mean
from worldmodel.model.heads.dynamics import LOGVAR_MAX, LOGVAR_MIN, Prediction, bound_logvar
from worldmodel.model.heads.reward import BINS
from worldmodel.model.world_model import Outputs
from worldmodel.types import ScoredRollout, add_fields

SPATIAL = ["encoder=grid", "encoder.spatial=true", "encoder.channels=[8]"]


def make(*overrides: str) -> tuple:
    torch.manual_seed(0)
    agent, stream, _ = tiny_agent(*EASY, *overrides)
    rolls = [stream.collector.collect() for _ in range(2)]
    stream.close()
    agent.model.score_rollout(rolls[0])
    return agent.model, rolls[1]


@pytest.fixture(scope="module")
def pair() -> tuple:
    return make()


@torch.no_grad()
def test_h_depends_on_the_action_before_and_not_on_the_next_one(pair) -> None:
    model, roll = pair
    before = model(roll)
    t = 3
    other = clone(roll)
    other.act[:, -roll.num_new - 1 + t] = (other.act[:, -roll.num_new - 1 + t] + 1) % 7
    after = model(other)
    assert torch.equal(after.h[:, : t + 1], before.h[:, : t + 1])
    goes_on = roll.new_steps(roll.mask)[:, t]
    assert goes_on.any() and (after.h[goes_on, t + 1] != before.h[goes_on, t + 1]).any(-1).all()
    assert (after.pred.mean[:, t] != before.pred.mean[:, t]).any(-1).all()


@torch.no_grad()
def test_the_action_before_a_reset_is_unknown(pair) -> None:
    model, roll = pair
    before, other = model(roll), clone(roll)
    ignored = roll.valid & ~roll.mask
    ignored[:, -1] = False
    assert ignored.any()
    other.act[ignored] = (other.act[ignored] + 1) % 7
    torch.testing.assert_close(model(other).h, before.h, atol=0, rtol=0)


@torch.no_grad()
def test_rows_before_the_beginning_change_nothing(pair) -> None:
    model, roll = pair
    roll = clone(roll)
    roll.valid[:, :4] = roll.mask[:, :4] = False
    before, other = model(roll), clone(roll)
    other.obs[:, :4], other.act[:, :4], other.episode[:, :4] = 1, 2, 77
    torch.testing.assert_close(model(other).error, before.error, atol=1e-6, rtol=0)


def test_errors_in_units_of_the_scales(pair) -> None:
    model, _ = pair
    y = torch.randn(2, 4, 8)
    h, act = torch.randn(2, 3, 16), torch.randint(7, (2, 3))
    out = model.predict_and_compare(h, act, y, y)
    delta, std = y[:, 1:] - y[:, :-1], model.delta_scale.std
    torch.testing.assert_close(out.error, delta / std - out.pred.mean)
    torch.testing.assert_close(out.skill_error, out.error.square().mean(-1))
    torch.testing.assert_close(out.skill_base, (delta / std).square().mean(-1))
    torch.testing.assert_close(model.expected_delta(out.pred, y[:, :-1]), out.pred.mean * std)


def test_absolute_prediction_measures_its_skill_in_the_same_units() -> None:
    model, roll = make("model.predicts=absolute")
    with torch.no_grad():
        out = model(roll)
    expected = model.expected_delta(out.pred, out.y[:, :-1])
    gap = (out.y[:, 1:] - out.y[:, :-1] - expected) / model.delta_scale.std
    torch.testing.assert_close(out.skill_error, gap.square().mean(-1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(out.error, model.latent_scale(out.y[:, 1:]) - out.pred.mean)


@torch.no_grad()
def test_scoring_is_the_forward_pass_after_an_update_of_the_scales(pair) -> None:
    model, roll = pair
    count = float(model.delta_scale.count)
    scored = model.score_rollout(roll)
    out = model(roll)
    assert model.delta_scale.count == count + roll.new_steps(roll.mask).sum()
    torch.testing.assert_close(scored.error, out.error, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scored.pred.logvar, out.pred.logvar, atol=1e-4, rtol=1e-4)


def test_scales_are_those_of_real_transitions() -> None:
    torch.manual_seed(0)
    agent, stream, _ = tiny_agent(*EASY)
    roll = stream.collector.collect()
    stream.close()
    out, mask = agent.model.score_rollout(roll), roll.new_steps(roll.mask)
    delta = (out.y[:, 1:] - out.y[:, :-1])[mask]
    assert not mask.all()
    torch.testing.assert_close(agent.model.delta_scale.std, delta.square().mean(0).sqrt(), atol=1e-4, rtol=1e-4)


def test_losses_by_hand(pair) -> None:
    model, roll = pair
    lead = roll.act[:, -roll.num_new - 1 : -1].shape
    error = torch.full((*lead, 2), 3.0)
    logvar = torch.tensor([0.0, 2.0]).expand(*lead, 2).clone().requires_grad_()
    head = model.dynamics.reward
    middle, low, high = BINS // 2, *head.bins[BINS // 2 + 2 : BINS // 2 + 4].tolist()
    head.last.fill_(middle + 3)
    logp = torch.zeros(*lead, BINS)
    logp[..., middle + 2], logp[..., middle + 3] = -1.0, -3.0
    pred = Prediction(error, logvar, torch.zeros(lead), logp, torch.zeros(lead))
    roll = clone(roll)
    roll.rew_ext.fill_(0.25 * low + 0.75 * high)
    one = torch.ones(())
    losses = model.losses(Outputs(one, one, one, pred, 2 * error, one, one), roll)
    # 1/2 (9 / var + log var) sigma, averaged over both dimensions
    e = torch.tensor(2.0).exp()
    torch.testing.assert_close(losses["delta"], ((4.5 + 0.5 * (9 / e + 2) * e.sqrt()) / 2).expand(lead))
    torch.testing.assert_close(losses["rew"], torch.full(lead, 0.25 * 1.0 + 0.75 * 3.0))
    torch.testing.assert_close(losses["end"], torch.tensor(2.0).log().expand(lead))
    losses["delta"][0, 0].backward()  # sigma is a weight: no gradient through it
    by_hand = torch.stack([torch.tensor(0.5 * (1 - 9)), 0.5 * (1 - 9 / e) * e.sqrt()]) / 2
    torch.testing.assert_close(logvar.grad[0, 0], by_hand)


def test_logvar_stays_within_its_bounds() -> None:
    x = torch.linspace(-100, 100, 50).requires_grad_()
    y = bound_logvar(x)
    assert y.min() >= LOGVAR_MIN - 1e-3 and y.max() <= LOGVAR_MAX + 1e-3 and (y.diff() >= 0).all()


@torch.no_grad()
def test_a_local_change_of_a_map_has_a_local_effect() -> None:
    model, roll = make(*SPATIAL)
    out = model(roll)
    assert out.y.shape[2:] == (8, 7, 7) and out.error.shape[2:] == (8, 7, 7)
    y = out.y[:, :-1].clone()
    act = roll.new_steps(roll.act)
    before = model.predict(out.h, act, y).mean
    y[..., 0, 0] += 1
    change = (model.predict(out.h, act, y).mean - before).abs().amax((0, 1, 2))
    assert change[:3, :3].max() > 1e-4 and change[3:].max() == 0 and change[:, 3:].max() == 0


@pytest.mark.parametrize("overrides", [[], SPATIAL, ["model.predicts=absolute"]], ids=["vector", "map", "absolute"])
def test_it_learns_to_predict(overrides: list[str]) -> None:
    model, roll = make(*overrides)
    optimizer, mask = torch.optim.Adam(model.parameters(), 1e-2), roll.new_steps(roll.mask)

    def skill(out: Outputs) -> float:
        return 1 - float(masked_mean(out.skill_error, mask) / masked_mean(out.skill_base, mask))

    start = skill(model(roll))
    for _ in range(60):
        optimizer.zero_grad()
        out = model(roll)
        sum(masked_mean(x, mask) for x in model.losses(out, roll).values()).backward()
        optimizer.step()
    assert start < 0.2 < 0.5 < skill(model(roll))


def test_an_unknown_prediction_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model.predicts=foo: allowed are delta, absolute"):
        make("model.predicts=foo")


def test_rows_of_a_rollout() -> None:
    roll = hand_made(rew_ext=torch.arange(12.0).view(2, 6), num_new=4)
    assert roll.new_steps(roll.rew_ext).tolist() == [[1, 2, 3, 4], [7, 8, 9, 10]]
    assert roll.new_rows(roll.rew_ext).tolist() == [[1, 2, 3, 4, 5], [7, 8, 9, 10, 11]]
    assert roll.next_rows(roll.rew_ext).tolist() == [[2, 3, 4, 5], [8, 9, 10, 11]]
    second = roll[1:]
    assert len(second) == 1 and second.num_new == 4 and second.logp.shape == (1, 4)


def test_stages_of_a_rollout() -> None:
    roll = hand_made(rew_ext=torch.arange(12.0).view(2, 6), num_new=4)
    new = dict.fromkeys(("rew_int", "adv", "ret_ext", "ret_int"), torch.ones(2, 4))
    scored = add_fields(ScoredRollout, roll, **new)
    assert scored.rew_ext is roll.rew_ext and scored.logp is roll.logp and scored.num_new == 4
    sequences = scored.as_sequences()
    assert not hasattr(sequences, "logp") and sequences.until(2).rew_ext.tolist() == [[0, 1], [6, 7]]
    with pytest.raises(TypeError, match="rew_int"):
        add_fields(ScoredRollout, roll)
