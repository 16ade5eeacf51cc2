"""The encoder that is chosen for a space, and names of its parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

import encoders
from encoders import auto_encoder


def pixels(*shape: int) -> spaces.Box:
    return spaces.Box(0, 255, shape, np.uint8)


CHOSEN = [
    (pixels(64, 64, 3), encoders.Conv),
    (pixels(3, 64, 48), encoders.Conv),
    (pixels(200, 200), encoders.Conv),
    (pixels(63, 64, 3), encoders.Conv),
    (pixels(4, 84, 84), encoders.Conv),
    (pixels(16, 16, 1), encoders.Conv),
    (pixels(7, 7, 3), encoders.Grid),
    (pixels(8, 8, 3), encoders.MLP),  # a thumbnail
    (pixels(15, 64, 3), encoders.MLP),
    (pixels(64, 64, 5), encoders.MLP),
    (pixels(2, 20, 20, 3), encoders.MLP),
    (pixels(300), encoders.MLP),
    (spaces.Box(0, 1, (7, 7, 3), np.uint8), encoders.MLP),
    (spaces.Box(0, 1, (8, 8, 12), np.uint8), encoders.MLP),  # a board
    (spaces.Box(0, 1, (64, 64, 3), np.float32), encoders.MLP),
    (spaces.Box(-np.inf, np.inf, (4,), np.float32), encoders.MLP),
    (spaces.Discrete(5), encoders.Discrete),
    (spaces.MultiDiscrete([2, 3]), encoders.Discrete),
]


@pytest.mark.parametrize(("space", "kind"), CHOSEN, ids=lambda x: str(getattr(x, "shape", x.__class__.__name__)))
def test_the_rule(space: spaces.Space, kind: type) -> None:
    assert type(auto_encoder(space, dim=4)) is kind
    both = auto_encoder(spaces.Dict({"a": space, "b": spaces.Discrete(2)}), dim=4)
    assert type(both.part("a")) is kind and type(both.part("b")) is encoders.Discrete


def test_the_presets_are_what_the_rule_chooses() -> None:
    """Same weights and same output as the encoders that presets name."""
    for space, kind in ((pixels(7, 7, 3), encoders.Grid), (spaces.Box(-1, 1, (4,)), encoders.MLP)):
        torch.manual_seed(0)
        by_rule = auto_encoder(space)
        torch.manual_seed(0)
        by_name = kind(space)
        assert [k for k in by_rule.state_dict()] == [k for k in by_name.state_dict()]
        assert all(torch.equal(v, by_name.state_dict()[k]) for k, v in by_rule.state_dict().items())


@pytest.mark.parametrize("keys", [("a.b", "a.0"), ("keys", "training"), ("", "pop")])
def test_keys_that_are_no_module_names(keys: tuple[str, str]) -> None:
    encoder = auto_encoder(spaces.Dict({key: spaces.Discrete(i + 2) for i, key in enumerate(keys)}), dim=4)
    assert [encoder.part(key).num_values for key in keys] == [(2,), (3,)]
    assert encoder({key: torch.zeros(5, dtype=torch.long) for key in keys}).shape == (5, 4)


def test_a_huge_vector_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"encoder=auto with space=Box.*or at most 32768 numbers; or set encoder=mlp"
    ) as e:
        auto_encoder(pixels(4, 64, 64, 3))
    assert "\n" not in str(e.value)


def test_parts_of_a_space_without_keys_are_refused() -> None:
    with pytest.raises(ValueError, match=r"encoder.parts=\['x'\]: allowed for an observation without keys is {}"):
        auto_encoder(spaces.Discrete(2), parts={"x": encoders.MLP})
