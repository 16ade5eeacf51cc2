"""The observation's codes as target: exact probabilities, surprise of local events, and imagination."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from helpers.tiny import EASY, tiny_agent
from torch import Tensor

from encoders import Grid
from worldmodel.masked import masked_mean
from worldmodel.model.heads import CodesHead, CodesPrediction, Prediction
from worldmodel.model.imagined_state import ImaginedState
from worldmodel.model.targets import Codes

SIZES = (4, 3, 2)
SPACE = Box(0, 3, (2, 2, 3), np.uint8)


def tiny_target(space: Box = SPACE, sizes: tuple[int, ...] = SIZES) -> Codes:
    return Codes(Grid(space, dim=4, num_values=sizes), space)


def views(*lead: int) -> Tensor:
    """Random observations (*lead, 2, 2, 3)."""
    return torch.stack([torch.randint(n, (*lead, 2, 2)) for n in SIZES], -1).to(torch.uint8)


def tiny_head(target: Codes, seen: int = 7) -> CodesHead:
    """A head with random weights that has seen the first `seen` codes."""
    head = CodesHead(4, target, hidden=8, channels=5)
    torch.nn.init.normal_(head.prior.weight)
    head.used[:seen] = True
    return head


def test_codes_are_numbered_and_restored() -> None:
    torch.manual_seed(0)
    target, obs = tiny_target(), views(5)
    y = target(obs, torch.zeros(5, 4))
    assert y.shape == (5, *target.shape) == (5, 4 * 9) and y.sum(-1).eq(4 * 3).all()
    assert torch.equal(target.components(y), obs.flatten(1, 2).long())
    assert target.codes(torch.tensor([3, 2, 1])) == 23 and target.codes(torch.tensor([1, 0, 1])) == 7
    assert torch.equal(target.split(target.codes(target.components(y))), target.components(y))


@torch.no_grad()
def test_the_probabilities_of_all_codes_sum_to_one() -> None:
    torch.manual_seed(0)
    target = tiny_target()
    now = target(views(6), torch.zeros(6, 4))
    for seen in (0, 7, 24):
        pred = tiny_head(target, seen)(torch.randn(6, 4), torch.randn(6, 4), now)
        total = torch.zeros(6, 4)
        for code in range(24):
            y = target.one_hot(target.split(torch.full((6, 4), code))).flatten(-2).float()
            total += (-pred.nll(y)).exp()
        torch.testing.assert_close(total, torch.ones(6, 4))
        symbols = pred.probabilities.unflatten(-1, (4, 9)).split(SIZES, -1)
        for part in symbols:
            torch.testing.assert_close(part.sum(-1), torch.ones(6, 4))


def test_the_present_code_is_the_outcome_of_staying() -> None:
    torch.manual_seed(0)
    target = tiny_target()
    now = target(views(6), torch.zeros(6, 4))
    pred = tiny_head(target, 24)(torch.randn(6, 4), torch.randn(6, 4), now)
    torch.testing.assert_close(pred.nll(now), -pred.logp[..., 0])
    own = pred.logp[..., 1:-1].gather(-1, pred.now[..., None])
    assert (own < -1e8).all()


@torch.no_grad()
def test_samples_and_moments_follow_the_probabilities() -> None:
    torch.manual_seed(0)
    target = tiny_target()
    one = target(views(1), torch.zeros(1, 4))
    head = tiny_head(target, 24)
    many = head(torch.randn(1, 4).expand(20_000, 4), torch.randn(1, 4).expand(20_000, 4), one.expand(20_000, -1))
    y = target.one_hot(target.split(many.sample())).flatten(-2).float()
    torch.testing.assert_close(y.mean(0), many.probabilities[0], atol=0.02, rtol=0)
    torch.testing.assert_close(y.var(0).clamp_min(1e-4), many.logvar[0].exp(), atol=0.02, rtol=0)
    excess = replace(many, floor=1e-6).excess(torch.zeros(()), y)  # no floor: standardised
    assert excess.mean().abs() < 0.03 and abs(excess.std() - 1) < 0.03


def of_cells(p: Tensor, floor: float = 1.0) -> CodesPrediction:
    """A prediction in which each of the cells (N,) stays with probability 1 - p, and else shows the only other code."""
    cells = len(p)
    target = tiny_target(Box(0, 1, (1, cells, 1), np.uint8), (2,))
    logp = torch.stack([(1 - p).log(), torch.full_like(p, -1e9), p.log(), torch.full_like(p, -1e9)], -1)
    now = torch.zeros(cells, dtype=torch.long)
    y = target.one_hot(now[:, None]).flatten().float()
    none = torch.zeros(())
    return CodesPrediction(none, none, none, y, logp, now, torch.arange(2), torch.ones(cells), target, floor)


def change(pred: CodesPrediction, where: Tensor) -> Tensor:
    """The one-hot codes after the cells `where` (N,) have changed."""
    return pred.target.one_hot(where.long()[:, None]).flatten().float()


def test_an_event_pays_the_same_in_views_of_any_size_and_noise_pays_nothing() -> None:
    def pay(pred: CodesPrediction, where: Tensor) -> float:
        return float((pred.excess(torch.zeros(()), change(pred, where)) - 2.0).clamp(0.0, 20.0))

    events = []
    for cells in (1, 49, 121):
        pred = of_cells(torch.full((cells,), 1e-4))
        events.append(pay(pred, torch.arange(cells) == cells // 2))
        assert pay(pred, torch.zeros(cells)) == 0.0
    assert min(events) > 0.9 * max(events) and max(events) > 5
    torch.manual_seed(0)
    for cells in (1, 49, 121):
        for chance in (0.5, 0.1, 0.02):
            noise = of_cells(torch.full((cells,), chance))
            mean = np.mean([pay(noise, torch.rand(cells) < chance) for _ in range(1000)])
            assert mean < 0.01 * max(events), (cells, chance)


def test_an_event_pays_the_same_on_maps_of_any_size() -> None:
    torch.manual_seed(0)
    for side in (1, 7, 11):
        error = torch.randn(400, 32, side, side)
        none = torch.zeros(400)
        pred = Prediction(torch.zeros_like(error), torch.zeros_like(error), none, none, none)

        def pay(error: Tensor, pred: Prediction = pred) -> Tensor:
            return (pred.excess(error, error) - 2.0).clamp(0.0, 20.0)

        assert pay(error).mean() < 0.01 * 20
        error[..., side // 2, side // 2] = 10.0  # e^2 / sigma^2 = 100
        assert pay(error).min() == 20.0


def test_codes_are_in_use_once_a_rollout_was_scored() -> None:
    torch.manual_seed(0)
    agent, stream, _ = tiny_agent(*EASY, "target=codes")
    roll = stream.collector.collect()
    stream.close()
    model, target = agent.model, agent.model.target
    agent.score(roll)
    codes = target.codes(target.components_of(roll.obs[:, -roll.num_new - 1 :])).unique()
    assert torch.equal(model.dynamics.used.nonzero().squeeze(-1), codes)
    assert agent.metrics["delta_skill"] < 1 and "model.heads.dynamics.used" in agent.state_dict()
    assert not [name for name, _ in model.target.named_parameters()]


def test_it_learns_and_shapes_the_memory() -> None:
    torch.manual_seed(0)
    agent, stream, _ = tiny_agent(*EASY, "target=codes")
    roll = stream.collector.collect()
    stream.close()
    model, mask = agent.model, roll.new_steps(roll.mask)
    agent.score(roll)

    def loss() -> Tensor:
        return masked_mean(model.losses(model(roll), roll)["delta"], mask)

    before = loss()
    before.backward()
    assert all(p.grad.abs().sum() > 0 for p in model.memory.parameters())
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        (now := loss()).backward()
        optimizer.step()
    assert now < 0.3 * before


@torch.no_grad()
def test_imagined_observations_are_encoded_and_fed_back() -> None:
    torch.manual_seed(0)
    agent, stream, _ = tiny_agent(*EASY, "target=codes")
    roll = stream.collector.collect()
    stream.close()
    agent.score(roll)
    state = ImaginedState(agent.model, roll, 3)
    for _ in range(3):
        state.step(torch.zeros(4, dtype=torch.long))
        assert state.obs.shape == (4, 7, 7, 3) and state.obs.dtype == torch.uint8
        torch.testing.assert_close(state.z, agent.model.encoder(state.obs))
        shown = agent.model.target.codes(agent.model.symbols(state.obs))
        assert agent.model.dynamics.used[shown].all()


def test_configured_on_the_command_line(cli: Callable, tmp_path: Path) -> None:
    short = ("total_steps=64", "target=codes", "env.num_envs=4", "data.rollout_length=8", "data.minibatches=2")
    ended = cli(
        *short,
        "policy=imagined",
        "curiosity=none",
        "policy.imagination.horizon=2",
        "data.replay_capacity=16",
        f"run_dir={tmp_path / 'a'}",
    )
    assert ended.code == 0, ended.err
    ended = cli("env=cartpole", "encoder=mlp", "target=codes", f"run_dir={tmp_path / 'b'}")
    assert ended.code == 2 and "target=codes with encoder=MLP: allowed are encoders of codes" in ended.err
    ended = cli("target=codes", "model.predicts=absolute", f"run_dir={tmp_path / 'c'}")
    assert ended.code == 2 and "model.predicts=absolute: allowed with target=codes is delta" in ended.err
    assert len(ended.err.strip().splitlines()) == 1


def test_too_many_kinds_of_cells_are_refused() -> None:
    with pytest.raises(ValueError, match="target=codes with 125000 kinds of cells: allowed are at most 65536"):
        tiny_target(Box(0, 49, (2, 2, 3), np.uint8), (50, 50, 50))
