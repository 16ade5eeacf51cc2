"""Running statistics of observations: equal weights for all real rows, constants, and the encoders that read them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from helpers.rollouts import hand_made
from torch import nn

import worldmodel.obs_normalizer as module
from encoders import MLP, Conv, Grid, Standardise
from encoders import Dict as DictEncoder
from worldmodel.obs_normalizer import ObsNormalizer, input_normalizer, signal_normalizer
from worldmodel.types import Rollout

PLANE, WIDE = Box(-10, 10, (2,), np.float32), Box(-np.inf, np.inf, (3,), np.float32)


def roll(obs: list, valid: list | None = None) -> Rollout:
    """A rollout of one sequence of observations; the last row closes it."""
    real = torch.ones(1, len(obs), dtype=torch.bool) if valid is None else torch.tensor([valid])
    return hand_made(obs=torch.tensor([obs]), valid=real)


def test_all_real_rows_have_the_same_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 2)  # a row at a time
    normalizer = ObsNormalizer({"": (2,)})
    assert normalizer.empty
    normalizer.update(roll([[0.0, 10.0], [2.0, 20.0], [99.0, 99.0]]))  # the closing row is in the next rollout
    normalizer.update(roll([[4.0, 30.0], [7e7, 7e7], [0.0, 0.0]], [True, False, True]))
    moments = normalizer.moments["of_"]
    assert moments.count == 3 and not normalizer.empty
    torch.testing.assert_close(moments.mean, torch.tensor([2.0, 20.0]))
    torch.testing.assert_close(normalizer.std(), torch.tensor([8 / 3, 200 / 3]).sqrt())
    moments.count.fill_(1e9)
    normalizer.update(roll([[3.0, 30.0], [3.0, 30.0]]))
    assert moments.count == 1e9 + 1  # nothing is forgotten
    assert normalizer(torch.tensor([2.0, 1e9])).tolist() == [0.0, 10.0]


def test_a_constant_keeps_its_unit_and_a_small_spread_is_a_spread() -> None:
    normalizer = ObsNormalizer({"": (3,)})
    for _ in range(50):
        normalizer.update(roll([[0.1, 1e6 + 0.5, -1e-9], [0.1, 1e6 + 0.5, 1e-9], [0.0, 0.0, 0.0]]))
    torch.testing.assert_close(normalizer.std(), torch.tensor([1.0, 1.0, 1e-9]))
    assert normalizer(torch.tensor([3.1, 1e6 - 1.5, 2e-9])).allclose(torch.tensor([3.0, -2.0, 2.0]))


def test_encoders_change_only_when_statistics_are_published() -> None:
    space = Dict({"pos": PLANE, "speed": WIDE, "dir": Discrete(4)})
    own = {"speed": MLP, "pos": lambda space: MLP(space, 4, normalise=True)}
    agent = nn.ModuleList([DictEncoder(space, 8, normalise=True), DictEncoder(space, 8, parts=own, normalise=True)])
    normalizer = input_normalizer(agent)
    assert normalizer is not None and set(normalizer.moments) == {"of_pos", "of_speed"}
    obs = {key: torch.as_tensor(np.stack([space[key].sample() for _ in range(4)]))[None] for key in space}
    before = agent[1](obs)
    normalizer.update(hand_made(obs=obs, valid=torch.ones(1, 4, dtype=torch.bool)))
    assert torch.equal(agent[1](obs), before)
    normalizer.publish(agent)
    assert not torch.allclose(agent[1](obs), before)
    for encoder in agent:
        for key in ("pos", "speed"):
            part = encoder.parts[key]
            rows = obs[key][0, :3].float()
            assert isinstance(part.standardise, Standardise)
            torch.testing.assert_close(part.standardise.mean, rows.mean(0))
            torch.testing.assert_close(part.normalise(obs[key]), normalizer(obs)[key])
            torch.testing.assert_close(part.normalise(rows).std(0, unbiased=False), torch.ones(rows.shape[1]))


def test_only_vectors_are_normalised() -> None:
    image, view = Box(0, 255, (40, 40, 3), np.uint8), Box(0, 255, (7, 7, 3), np.uint8)
    assert input_normalizer(nn.ModuleList([Conv(image), Grid(view), MLP(PLANE)])) is None


def test_signals_normalise_images_as_well_and_call_a_first_change_new() -> None:
    image = Box(0, 255, (40, 40, 3), np.uint8)
    normalizer, space = signal_normalizer(image, Conv(image))
    assert Conv(space, dim=4)(torch.randn(2, 40, 40, 3)).shape == (2, 4)
    obs = torch.full((1, 3, 40, 40, 3), 200, dtype=torch.uint8)
    normalizer.update(hand_made(obs=obs, valid=torch.ones(1, 3, dtype=torch.bool)))
    assert normalizer(obs).eq(0).all() and normalizer(obs - 1).eq(-5).all()


def test_a_normalised_encoder_preserves_the_scale() -> None:
    torch.manual_seed(0)
    z = MLP(WIDE, dim=128, normalise=True)(torch.randn(2000, 3))
    assert 0.8 < z.square().mean() < 1.2 and 0.6 < z.std(0).square().mean().sqrt() < 1.0
    offset = MLP(WIDE, normalise=True, symlog=True).normalise(torch.full((3,), 30.0))
    torch.testing.assert_close(offset, torch.full((3,), np.log1p(10.0)), check_dtype=False)
