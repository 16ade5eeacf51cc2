"""Recall head: the symbols of earlier rows by hand, and a memory that learns to keep them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gymnasium.spaces import Box, Discrete
from helpers.tiny import EASY, tiny_agent

from encoders.discrete import Discrete as DiscreteEncoder
from encoders.mlp import MLP
from worldmodel.masked import masked_mean
from worldmodel.model.heads.recall import RecallHead
from worldmodel.model.memory import Transformer


def test_symbols_of_earlier_rows_by_hand() -> None:
    head = RecallHead(4, DiscreteEncoder(Discrete(4), dim=4))
    codes = torch.tensor([[3, 2, 0, 1, 1, 2, 1]]).view(1, 7, 1, 1)
    starts = torch.tensor([[True, True, False, False, True, False, False]])
    valid = torch.tensor([[False, True, True, True, True, True, True]])
    seen = head.earlier(codes, starts, valid)[0]
    nothing: list[int] = []
    for row, symbols in enumerate((nothing, nothing, [2], [0, 2], nothing, [1], [1, 2])):
        assert seen[row].nonzero().flatten().tolist() == symbols, row


def test_symbols_of_a_view_are_found_wherever_they_are() -> None:
    agent, stream, _ = tiny_agent(*EASY, "heads=recall")
    roll = stream.collector.collect()
    stream.close()
    head, codes = (
        agent.model.head("recall"),
        agent.model.symbols(roll.obs),
    )
    # codes (4, 13, 49, 3) have 11, 6 and 4 values
    seen = head.earlier(codes, roll.starts, roll.valid)
    checked = 0
    for b in range(len(roll)):
        symbols: set[int] = set()
        for t in range(codes.shape[1]):
            if roll.starts[b, t]:
                symbols = set()
            assert set(seen[b, t].nonzero().flatten().tolist()) == symbols
            checked += len(symbols)
            if roll.valid[b, t]:
                view = roll.obs[b, t].view(-1, 3).long()
                symbols |= {int(x) for x in (view + torch.tensor([0, 11, 17])).unique()}
    assert checked > 100


def test_without_weights_it_costs_a_bit_for_each_symbol() -> None:
    head = RecallHead(4, DiscreteEncoder(Discrete(5), dim=4))
    torch.nn.init.zeros_(head.out.weight)
    torch.nn.init.zeros_(head.out.bias)
    cost = head.nll(torch.randn(2, 3, 4), torch.rand(2, 3, 5) > 0.5)
    torch.testing.assert_close(cost, torch.full((2, 3), 5 * torch.tensor(2.0).log().item()))


@pytest.mark.parametrize("depth", [0, 2])
def test_a_transformer_learns_to_keep_a_symbol_and_one_without_a_past_cannot(depth: int) -> None:
    """The first row has one of two symbols, the other eleven rows have unrelated ones.

    At the last row, the loss stays above 1.2 nats only where earlier rows cannot be read.
    """
    torch.manual_seed(0)
    encoder = DiscreteEncoder(Discrete(4), dim=16)
    head = RecallHead(16, encoder)
    memory = Transformer(16, depth=max(depth, 1), heads=2)
    parts = torch.nn.ModuleList([encoder, head, memory])
    optimizer = torch.optim.Adam(parts.parameters(), 1e-2)
    for _ in range(150):
        codes = torch.randint(2, 4, (32, 12))
        codes[:, 0] = torch.randint(2, (32,))
        rows = torch.arange(12).expand(32, -1)
        episode = torch.zeros_like(rows) if depth else rows  # without a past, each row is an episode of its own
        h = memory(encoder(codes), episode, torch.ones_like(rows, dtype=torch.bool))
        seen = head.earlier(codes[..., None, None], rows == 0, torch.ones_like(rows, dtype=torch.bool))
        cost = head.nll(h, seen)[:, -1].mean()
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
    assert cost < 0.1 if depth else cost > 1.2  # two symbols that exclude each other: 2 log 2 = 1.39 nats


def test_it_shapes_the_memory_and_is_off_by_default() -> None:
    agent, stream, _ = tiny_agent(*EASY)
    roll = stream.collector.collect()
    stream.close()
    assert not any("recall" in k for k in agent.state_dict())
    assert "recall" not in agent.model.losses(agent.model(roll), roll)
    agent, stream, _ = tiny_agent(*EASY, "heads=recall")
    roll = stream.collector.collect()
    stream.close()
    model = agent.model
    masked_mean(model.losses(model(roll), roll)["recall"], roll.new_steps(roll.mask)).backward()
    assert all(p.grad.abs().sum() > 0 for p in model.memory.parameters())
    assert model.heads["dynamics"].trunk.weight.grad is None


def test_an_encoder_without_codes_is_refused(cli: Callable, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"heads=recall with encoder=MLP: allowed are encoders of codes"):
        RecallHead(4, MLP(Box(-1, 1, (3,)), dim=4))
    ended = cli("env=cartpole", "encoder=mlp", "heads=recall", f"run_dir={tmp_path / 'run'}")
    assert ended.code == 2 and len(ended.err.strip().splitlines()) == 1
    assert "heads=recall with encoder=MLP: allowed are encoders of codes" in ended.err
