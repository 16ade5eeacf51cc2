"""Invariants 5 and 6: intrinsic rewards by hand, zero at a reset, and smaller for familiar transitions."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.by_hand import SPEC
from helpers.experience import collected
from helpers.rollouts import hand_made
from helpers.tiny import EASY, tiny_config
from omegaconf import OmegaConf
from torch import Tensor

from worldmodel.curiosity import Error, NoCuriosity, RewardNormalizer, Surprise
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.masked import masked_mean
from worldmodel.model.heads.dynamics import Prediction
from worldmodel.model.world_model import Outputs
from worldmodel.types import Rollout

ALL = torch.ones(1, 3, dtype=torch.bool)


def outputs(error: list, var: list) -> Outputs:
    """Outputs (1, 2) of two-dimensional latents with these errors and predicted variances."""
    logvar = torch.tensor(var).log()
    none, one = torch.zeros(1, 2), torch.ones(())
    pred = Prediction(torch.zeros_like(logvar), logvar, none, none, none)
    return Outputs(none, none, none, pred, torch.tensor(error), one, one)


OUT = outputs([[[1.0, 3.0], [2.0, 0.0]]], [[[1.0, 4.5], [0.1, 1.0]]])
ROLL = hand_made(rew_ext=torch.zeros(1, 3))


def test_surprise_by_hand() -> None:
    # (1/1 + 9/4.5) / 2 - 1 and (4/.1 + 0/1) / 2 - 1
    plain, bounded = (Surprise(SPEC, margin=0.0, low=-1.0, high=high) for high in (100.0, 10.0))
    torch.testing.assert_close(plain.reward(ROLL, OUT), torch.tensor([[0.5, 19.0]]))
    torch.testing.assert_close(bounded.reward(ROLL, OUT), torch.tensor([[0.5, 10.0]]))
    beyond = Surprise(SPEC, margin=2.0, low=0.0, high=100.0)
    torch.testing.assert_close(beyond.reward(ROLL, OUT), torch.tensor([[0.0, 17.0]]))
    with pytest.raises(ValueError, match=r"curiosity.low=3"):
        Surprise(SPEC, low=3.0, high=2.0)


def test_expected_noise_is_no_surprise() -> None:
    torch.manual_seed(0)
    std = torch.tensor([0.1, 1.0, 10.0, 100.0]).repeat(16)
    error = torch.randn(1, 4000, 64) * std
    none, one = torch.zeros(1, 4000), torch.ones(())
    pred = Prediction(torch.zeros_like(error), 2 * std.log().expand_as(error), none, none, none)
    out = Outputs(none, none, none, pred, error, one, one)
    assert Surprise(SPEC, margin=0.0, low=-1.0).reward(ROLL, out).mean().abs() < 0.01
    assert Error(SPEC).reward(ROLL, out).mean() > 2000


def test_error_and_none_by_hand() -> None:
    torch.testing.assert_close(Error(SPEC).reward(ROLL, OUT), torch.tensor([[5.0, 2.0]]))
    assert torch.equal(NoCuriosity(SPEC).reward(ROLL, OUT), torch.zeros(1, 2))


def test_maps_are_averaged_over_positions() -> None:
    error = torch.randn(1, 2, 3, 4, 5)
    none, one = torch.zeros(1, 2), torch.ones(())
    out = Outputs(none, none, none, Prediction(torch.zeros_like(error), 0 * error, none, none, none), error, one, one)
    torch.testing.assert_close(Error(SPEC).reward(ROLL, out), error.square().mean((2, 3, 4)))


def test_scale_by_the_spread_of_discounted_sums() -> None:
    scale = RewardNormalizer(1, normalise="return", gamma=0.5, scale=2.0)
    sums = [1.0, 2.5, 4.25]  # 1, 1/2 + 2, 2.5/2 + 3
    std = torch.tensor(sums).std(correction=0)
    torch.testing.assert_close(scale(torch.tensor([[1.0, 2.0, 3.0]]), ALL), torch.tensor([[1.0, 2.0, 3.0]]) * 2 / std)
    sums += [4.25 / 2, 4.25 / 4 + 4, (4.25 / 4 + 4) / 2 + 1]  # the sum goes on from rollout to rollout
    std = torch.tensor(sums).std(correction=0)
    torch.testing.assert_close(scale(torch.tensor([[0.0, 4.0, 1.0]]), ALL), torch.tensor([[0.0, 4.0, 1.0]]) * 2 / std)


def test_a_masked_step_has_no_reward_and_does_not_discount() -> None:
    mask = torch.tensor([[True, False, True]])
    for mode in ("return", "mean_std", "none"):
        plain, gap = (RewardNormalizer(1, normalise=mode, gamma=0.5) for _ in range(2))
        expected = plain(torch.tensor([[1.0, 3.0]]), ALL[:, :2])
        got = gap(torch.tensor([[1.0, 99.0, 3.0]]), mask)
        assert got[0, 1] == 0
        torch.testing.assert_close(got[:, [0, 2]], expected)
        torch.testing.assert_close(gap.sum, plain.sum)


def test_scale_by_mean_and_std() -> None:
    scale = RewardNormalizer(1, normalise="mean_std")
    rew = torch.tensor([[1.0, 2.0, 6.0]])
    torch.testing.assert_close(scale(rew, ALL), (rew - 3) / rew.std(correction=0))
    both = torch.tensor([1.0, 2.0, 6.0, 3.0, 3.0, 9.0])
    torch.testing.assert_close(scale(both[None, 3:], ALL), ((both - 4) / both.std(correction=0))[None, 3:])


@pytest.mark.parametrize("mode", ["return", "none", "mean_std"])
def test_a_centred_reward_has_the_running_mean_subtracted(mode: str) -> None:
    plain, centred = (RewardNormalizer(1, normalise=mode, gamma=0.5, scale=2.0, centred=x) for x in (False, True))
    first, mask = torch.tensor([[1.0, 2.0, 99.0, 3.0]]), torch.tensor([[True, True, False, True]])
    expected = torch.where(
        mask, plain(first, mask) - (0 if mode == "mean_std" else plain.apply(torch.tensor(2.0))), 0.0
    )
    torch.testing.assert_close(centred(first, mask), expected)
    resumed = RewardNormalizer(1, normalise=mode, gamma=0.5, scale=2.0, centred=True)
    resumed.load_state_dict(centred.state_dict())
    then = torch.tensor([[4.0, 0.0, 8.0]])  # the mean of all: 3
    got = centred(then, ALL)
    assert torch.equal(resumed(then, ALL), got)
    if mode == "none":
        torch.testing.assert_close(got, (then - 3) * 2)
    assert plain.state_dict().keys() <= centred.state_dict().keys(), "checkpoints of before can be read"


def test_symlog_clip_and_scale_in_that_order() -> None:
    scale = RewardNormalizer(1, normalise="none", use_symlog=True, clip=1.0, scale=3.0)
    got = scale(torch.tensor([[math.e**0.5 - 1, -100.0, 0.0]]), ALL)
    torch.testing.assert_close(got, torch.tensor([[1.5, -3.0, 0.0]]))
    with pytest.raises(ValueError, match=r"reward.normalise=foo: allowed are return, mean_std, none"):
        RewardNormalizer(1, normalise="foo")


@pytest.mark.parametrize("signal", ["rnd", "random_features", "deir", "etd", "e3b"])
def test_published_settings_change_rewards_sizes_and_rates_alone(signal: str) -> None:
    def flat(node: dict, path: str = "") -> dict[str, object]:
        parts = (flat(v, f"{path}{k}.") if isinstance(v, dict) else {path + k: v} for k, v in node.items())
        return {key: value for part in parts for key, value in part.items()}

    given = (["experiment=doorkey", f"curiosity={signal}"], [f"experiment={signal}_published"])
    plain, published = (flat(OmegaConf.to_container(tiny_config(*overrides, "name=x"))) for overrides in given)
    changed = {key for key in published if published[key] != plain[key]}
    assert plain.keys() == published.keys() and "reward.scale" in changed
    groups = (
        "curiosity.dim",
        "reward.",
        "policy.objective.",
        "policy.return_scale.",
        "data.",
        "optimizer.part_lr.",
        "weights.entropy",
    )
    assert all(key.startswith(groups) for key in changed)


def test_the_bonus_of_e3b_as_published_by_hand() -> None:
    """Over the std of all bonuses, without their mean, and at most 1."""
    options = {k: v for k, v in tiny_config("experiment=e3b_published").reward.items() if k[0] != "_"}
    scale = RewardNormalizer(1, **options)
    first = torch.tensor([[1.0, 2.0, 6.0]])
    torch.testing.assert_close(scale(first, ALL), (first / first.std(correction=0)).clamp(max=1.0))
    both = torch.tensor([1.0, 2.0, 6.0, 3.0, 0.0, 9.0])
    expected = (both / both.std(correction=0)).clamp(max=1.0)[None, 3:]
    torch.testing.assert_close(scale(both[None, 3:], ALL), expected)


def test_a_rollout_weighs_a_tenth_in_the_statistics_of_deir() -> None:
    options = {k: v for k, v in tiny_config("experiment=deir_published").reward.items() if k[0] != "_"}
    scale, mask = RewardNormalizer(16, **options), torch.ones(16, 512, dtype=torch.bool)
    for _ in range(10):
        scale(torch.ones(16, 512), mask)
    scale(torch.full((16, 512), 11.0), mask)
    assert scale.moments.mean == pytest.approx(2.0, rel=1e-5)  # 0.9 * 1 + 0.1 * 11


@pytest.mark.parametrize("signal", ["surprise", "surprise_alone", "error", "none"])
@pytest.mark.parametrize("mode", ["return", "mean_std", "none"])
def test_no_reward_for_a_reset(signal: str, mode: str) -> None:
    margin = ["curiosity.parts.surprise.margin=-1"] if signal == "surprise" else []  # below 0, all events pay
    agent, rollouts = collected(f"curiosity={signal}", *EASY, *margin)
    agent.reward_normalizer = RewardNormalizer(4, normalise=mode)
    for unscored in rollouts:
        roll = agent.score(unscored)
        mask = roll.new_steps(roll.mask)
        assert not mask.all() and (roll.rew_int[~mask] == 0).all() and (roll.adv[~mask] == 0).all()
        assert (roll.rew_int[mask] != 0).any() == (signal != "none")


def fit(agent: CuriousAgent, roll: Rollout) -> None:
    """Train the world model on these transitions."""
    optimizer = torch.optim.Adam(agent.model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        losses = agent.model.losses(agent.model(roll), roll)
        masked_mean(losses["delta"], roll.new_steps(roll.mask)).backward()
        optimizer.step()


def test_familiar_transitions_have_smaller_rewards() -> None:
    agent, (old, new) = collected("data.rollout_length=16", "env.num_envs=8", "data.context=0", "memory.dim=32", *EASY)
    new.obs[..., 0] = (new.obs[..., 0] + 3) % 11  # a world with other observations
    agent.model.score_rollout(old)
    signals = [Surprise(SPEC, margin=0.0, low=-1.0), Error(SPEC)]

    @torch.no_grad()
    def score(roll: Rollout) -> Tensor:
        out, mask = agent.model(roll), roll.new_steps(roll.mask)
        return torch.stack([masked_mean(signal.reward(roll, out), mask) for signal in signals])

    fit(agent, old)
    before, known = score(new), score(old)
    assert (before > known + 0.5).all(), "the new world is not new"
    fit(agent, new)
    assert (score(new) < known + 0.5 * (before - known)).all()
