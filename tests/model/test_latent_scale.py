"""A learnt latent keeps its scale: neither loss is lower for a smaller latent, and running scales follow it."""

from __future__ import annotations

from statistics import median

import gymnasium as gym
import pytest
import torch
from helpers.rollouts import hand_made
from helpers.tiny import minibatches, tiny_agent
from torch import Tensor, nn

from worldmodel.masked import masked_mean
from worldmodel.model.memory import MLP
from worldmodel.model.targets import EMA, Frozen, Inverse, Reconstruction, SIGReg, Target, VICReg
from worldmodel.model.targets.base import without_scale
from worldmodel.model.world_model import WorldModel

DIM = 16


def test_without_scale_by_hand() -> None:
    x = torch.tensor([[[3.0, 1.0], [4.0, -1.0], [50.0, 7.0]]], requires_grad=True)
    mask = torch.tensor([[True, True, False]])
    out = without_scale(x, mask)
    torch.testing.assert_close(out, x)
    out[0, 0, 0].backward()
    # d/dx_j of x_1 r0 / r with r^2 = (9 + 16) / 2: delta_1j - x_1 x_j / 25
    torch.testing.assert_close(x.grad, torch.tensor([[[16 / 25, 0.0], [-12 / 25, 0.0], [0.0, 0.0]]]))
    assert torch.isfinite(torch.autograd.grad(without_scale(0 * x, mask).sum(), x)[0]).all()


def model_of(kind: type[Target], predicts: str) -> WorldModel:
    encoder = nn.Identity()
    encoder.shape = (DIM,)
    return WorldModel(encoder, kind(encoder), MLP(8, depth=1), gym.spaces.Discrete(3), hidden=8, predicts=predicts)


def scaled_losses(model: WorldModel, y: Tensor, factor: Tensor) -> dict[str, Tensor]:
    """The losses that y (B, T+1, D) reaches, after y has shrunk towards its running mean by a factor."""
    roll = hand_made(obs=y, act=torch.ones(y.shape[:2], dtype=torch.long), mask=torch.rand(y.shape[:2]) > 0.2)
    small = model.latent_scale.mean + factor * (y - model.latent_scale.mean)
    h = torch.randn(len(y), roll.num_new, 8)
    mask = roll.new_steps(roll.mask)
    out = model.predict_and_compare(h, roll.new_steps(roll.act), small, small, mask)
    losses = model.losses(out, roll)
    return {name: masked_mean(losses[name], mask) for name in losses if name not in ("rew", "end")}


@pytest.mark.parametrize("predicts", ["delta", "absolute"])
@pytest.mark.parametrize("kind", [SIGReg, VICReg])
def test_a_smaller_latent_has_no_smaller_loss(kind: type[Target], predicts: str) -> None:
    torch.manual_seed(0)
    model = model_of(kind, predicts)
    y = torch.randn(4, 65, 3) @ torch.randn(3, DIM) / 3**0.5 + 0.1  # of rank 3
    std = y.std((0, 1))
    mask = torch.ones(4, 64, dtype=torch.bool)
    for size in (0.05, 0.3, 0.9):
        small = size * y / std
        model.latent_scale.count.zero_()
        model.delta_scale.count.zero_()
        model.latent_scale.update(small[:, :-1], mask)
        model.delta_scale.update(small[:, 1:] - small[:, :-1], mask)
        factor = torch.ones(DIM, requires_grad=True)
        losses = scaled_losses(model, small, factor)
        (own,) = torch.autograd.grad(losses["delta"], factor, retain_graph=True)
        assert own.abs().max() < 1e-5
        (total,) = torch.autograd.grad(sum(losses.values()), factor)
        assert total.sum() < -1e-4  # it falls with a larger latent
    (larger,) = torch.autograd.grad(sum(scaled_losses(model, 3 * y / std, factor).values()), factor)
    assert larger.sum() > 1e-4


def test_the_prediction_error_itself_would_shrink_the_latent() -> None:
    """The control: without the correction, the loss falls with the latent."""
    torch.manual_seed(0)
    model = model_of(SIGReg, "delta")
    y = torch.randn(4, 65, DIM)
    factor = torch.ones((), requires_grad=True)
    out = model.predict_and_compare(torch.randn(4, 64, 8), torch.ones(4, 64, dtype=torch.long), y, factor * y)
    (slope,) = torch.autograd.grad(out.error.square().mean(), factor)
    assert slope > 0.1


def test_learnt_targets_have_a_short_running_scale() -> None:
    learnt = {kind.scale_horizon for kind in (SIGReg, VICReg, EMA, Inverse, Reconstruction)}
    assert max(learnt) <= 20_000 and Frozen.scale_horizon == 1e6
    model = model_of(SIGReg, "delta")
    real = torch.ones(16, 128, dtype=torch.bool)
    for scale in (*[1.0] * 40, *[0.25] * 20):  # updates of the default size
        y = scale * torch.randn(16, 129, DIM)
        model.latent_scale.update(y[:, :-1], real)
    ratio = 0.25 / model.latent_scale.std  # true by used
    assert (ratio > 0.5).all()  # 0.29 with a memory of a million steps


@pytest.mark.parametrize("target", ["sigreg", "vicreg"])
def test_training_keeps_the_scale(target: str) -> None:
    torch.manual_seed(100)
    sizes = ["env.num_envs=8", "data.rollout_length=32", "encoder.dim=32", "data.epochs=4", "data.minibatches=1"]
    agent, stream, cfg = tiny_agent("experiment=cartpole", f"target={target}", *sizes)
    optimiser = torch.optim.Adam([p for p in agent.parameters() if p.requires_grad], lr=1e-3)
    found = []
    for _ in range(15):
        for batch in minibatches(agent, stream, cfg):
            optimiser.zero_grad()
            agent.weighted_sum(agent.losses(batch).terms).backward()
            optimiser.step()
            agent.after_step()
        found.append(agent.metrics["latent_std"])
    stream.close()
    usual = median(found[7:])  # a single rollout with few episodes may be up to twice as wide
    assert 0.7 < usual < 1.4
    assert 0.6 < agent.model.latent_scale.std.mean() / usual < 1.6
