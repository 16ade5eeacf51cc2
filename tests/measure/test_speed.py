"""The arithmetic of the speed command; its timings are not tested."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from worldmodel.errors import ConfigError
from worldmodel.measure.transformer_speed import (
    ROWS,
    acting,
    arguments,
    product_flops,
    products,
    table,
    train_flops,
    trainer,
)
from worldmodel.model.memory import Transformer


def test_train_flops_by_hand():
    model = Transformer(dim=8, depth=2, heads=4, kv_heads=1)
    matrices = 2 * (8 * (8 + 2 + 2) + 8 * 8 + 2 * 8 * 32)  # q, k, v; out; up and down
    assert train_flops(model, tokens=10) == 10 * (6 * matrices + 12 * 2 * ROWS * 8 / 2)


def test_products_are_all_that_a_step_multiplies():
    """PyTorch counts 2 FLOPs per multiplication and three products per matrix."""
    model = nn.Sequential(nn.Linear(3, 5, bias=False), nn.GELU(), nn.Linear(5, 3, bias=False))
    with FlopCounterMode(display=False) as counter:
        products(model, tokens=7)()
    assert counter.get_total_flops() == product_flops(model, tokens=7) == 7 * 6 * 30


def test_trainer_learns():
    model = nn.Linear(3, 1)
    before = model.weight.clone()
    trainer(model, lambda m: m(torch.ones(2, 3)))()
    assert not model.weight.equal(before)


def test_ratios_of_acting_follow_from_its_times():
    row = acting(depth=1, kv_heads=1, rounds=1, envs=2, dim=8)
    assert row["ratio"] == pytest.approx(row["step_256_us"] / row["step_32_us"])
    assert row["window_over_step"] == pytest.approx(row["window_ms"] * 1e3 / row["step_256_us"])


def test_arguments():
    assert arguments(["rounds=3", "out=a.json"]) == {"threads": "2", "rounds": "3", "out": "a.json"}
    for word in ("speed=3", "rounds=", "rounds=-1", "threads=two"):
        with pytest.raises(ConfigError, match=f"^{word}: allowed|^{word.split('=')[0]}=.*: allowed"):
            arguments([word])


def test_table():
    assert table("t", [{"a": 1.23456, "bb": None}]) == "t\n    a  bb\n1.235    \n"
