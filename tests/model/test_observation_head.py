"""Observation head: a normalised distribution by the chain rule, trained with the model where configured."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from helpers.tiny import EASY, tiny_agent

from encoders.discrete import Discrete as DiscreteEncoder
from encoders.grid import Grid
from encoders.mlp import MLP
from worldmodel.masked import masked_mean
from worldmodel.model.heads.observation import ObservationHead


def head_of(sizes: list[int]) -> ObservationHead:
    torch.manual_seed(0)
    space = MultiDiscrete(sizes)
    head = ObservationHead(6, DiscreteEncoder(space, dim=6), space, hidden=8)
    for table in head.chain.values():
        torch.nn.init.normal_(table.weight)
    return head


@torch.no_grad()
def test_probabilities_of_all_symbols_sum_to_one() -> None:
    head = head_of([3, 2, 4])
    h, act = torch.randn(5, 6), torch.randn(5, 6)
    total = sum(torch.exp(-head.nll(h, act, torch.tensor([[c]]).expand(5, 1, 3))) for c in
                itertools.product(range(3), range(2), range(4)))  # fmt: skip
    torch.testing.assert_close(total, torch.ones(5))


@torch.no_grad()
def test_a_component_reads_those_before_it_and_no_later_one() -> None:
    head = head_of([3, 2, 4])
    logits = head(torch.randn(1, 6), torch.randn(1, 6))
    codes = torch.tensor([[[1, 0, 3]]])
    for c, later in ((0, 1), (0, 2), (1, 2)):
        other = codes.clone()
        other[..., later] = 1
        assert torch.equal(head.log_probs(logits, codes, c), head.log_probs(logits, other, c))
        other = codes.clone()
        other[..., c] = 2 if c == 0 else 1
        assert not torch.allclose(head.log_probs(logits, codes, later), head.log_probs(logits, other, later))


@torch.no_grad()
def test_without_weights_a_token_costs_log_of_the_alphabet() -> None:
    space = Discrete(3)
    head = ObservationHead(4, DiscreteEncoder(space, dim=4), space)
    torch.nn.init.zeros_(head.out.weight)
    torch.nn.init.zeros_(head.out.bias)
    nll = head.nll(torch.randn(2, 7, 4), torch.randn(2, 7, 4), torch.randint(3, (2, 7, 1, 1)))
    torch.testing.assert_close(nll, torch.full((2, 7), 3.0).log())


@torch.no_grad()
def test_an_open_gate_keeps_each_cell_of_a_view() -> None:
    torch.manual_seed(0)
    space = Box(0, 3, (2, 2, 3), np.uint8)
    head = ObservationHead(4, Grid(space, dim=4, num_values=(4, 3, 2)), space, hidden=8)
    now = torch.stack([torch.randint(n, (5, 4)) for n in (4, 3, 2)], -1)
    h, act = torch.randn(5, 4), torch.randn(5, 4)
    assert not torch.allclose(head(h, act, now)[0], head(h, act, now.flip(0))[0])
    for part in (head.out, head.gate):
        torch.nn.init.zeros_(part.weight)
        torch.nn.init.zeros_(part.bias)
    for table in head.stay:
        table.weight.copy_(20 * torch.eye(len(table.weight)))
    each = torch.tensor([4.0, 3.0, 2.0]).log().sum()
    torch.testing.assert_close(head.nll(h, act, now, now), (4 * each).expand(5))  # closed: all symbols alike
    torch.nn.init.ones_(head.gate.bias)
    assert (head.nll(h, act, now, now) < 1e-5).all() and (head.nll(h, act, (now + 1) % 2, now) > 19).all()


def test_an_encoder_without_codes_is_refused() -> None:
    space = Box(-1, 1, (3,))
    with pytest.raises(ValueError, match=r"heads=observation with encoder=MLP: allowed are encoders of codes"):
        ObservationHead(4, MLP(space, dim=4), space)


def test_off_by_default_and_free() -> None:
    agent, stream, _ = tiny_agent(*EASY)
    roll = stream.collector.collect()
    stream.close()
    assert not any("observation" in k for k in agent.state_dict())
    assert "observation" not in agent.model.losses(agent.model(roll), roll)


def test_trained_with_the_model_it_shapes_the_memory_and_learns() -> None:
    torch.manual_seed(0)
    agent, stream, _ = tiny_agent(*EASY, "heads=observation")
    roll = stream.collector.collect()
    stream.close()
    model, mask = agent.model, roll.new_steps(roll.mask)
    assert bool(agent.state_dict()["model.heads.observation.joint"])
    by_hand = model.symbols(roll.obs[:, -roll.num_new :])
    assert by_hand.shape == (4, 8, 49, 3) and torch.equal(by_hand[0, 0].view(7, 7, 3), roll.obs[0, -8].long())

    def loss() -> torch.Tensor:
        return masked_mean(model.losses(model(roll), roll)["observation"], mask)

    before = loss()
    before.backward()
    assert all(p.grad.abs().sum() > 0 for p in model.memory.parameters())
    assert model.heads["dynamics"].trunk.weight.grad is None
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        (now := loss()).backward()
        optimizer.step()
    assert now < 0.3 * before


def test_configured_on_the_command_line(cli: Callable, tmp_path: Path) -> None:
    ended = cli("total_steps=32", "heads=observation", f"run_dir={tmp_path / 'run'}")
    assert ended.code == 0, ended.err
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    uniform = math.log(11) + math.log(6) + math.log(4)  # nats a cell
    assert uniform - 0.3 < float(row["loss_observation"]) < uniform + 1.5  # random logits cost more than uniform ones
    ended = cli("env=cartpole", "encoder=mlp", "heads=observation", f"run_dir={tmp_path / 'other'}")
    assert ended.code == 2 and len(ended.err.strip().splitlines()) == 1
    assert "heads=observation with encoder=MLP: allowed are encoders of codes" in ended.err
