"""Latent targets: gradients, losses by hand, and slow copies."""

import inspect
from functools import partial
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import nn

import encoders
from worldmodel.model import targets
from worldmodel.model.targets.base import touched
from worldmodel.model.targets.inverse import ActionHead

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
VIEW = spaces.Box(0, 255, (7, 7, 3), np.uint8)
ACTS = spaces.Discrete(4)
B, L, D = 3, 5, 8


def views(*lead):
    return torch.stack([torch.randint(0, n, (*lead, 7, 7), dtype=torch.uint8) for n in (11, 6, 4)], -1)


def build(kind, make_encoder=None, obs_space=VIEW, act_space=ACTS, **options):
    """A main encoder and a target for it."""
    make = make_encoder or partial(encoders.Grid, dim=D)

    def fresh(**overrides):
        return make(obs_space, **overrides)

    encoder = fresh()
    known = dict(encoder=encoder, make_encoder=fresh, obs_space=obs_space, act_space=act_space)
    taken = inspect.signature(kind).parameters
    return encoder, kind(**{k: v for k, v in known.items() if k in taken}, **options)


def batch():
    mask = torch.ones(B, L, dtype=torch.bool)
    mask[0, :2] = mask[1, 3] = False
    return views(B, L + 1), torch.randint(0, 4, (B, L)), mask


KINDS = {
    targets.Frozen: ({"dim": D}, []),
    targets.Inverse: ({"dim": D}, ["inverse"]),
    targets.EMA: ({}, []),
    targets.SIGReg: ({}, ["sigreg"]),
    targets.VICReg: ({}, ["variance", "covariance"]),
    targets.Reconstruction: ({}, ["reconstruction"]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spatial", [False, True])
def test_shapes_and_where_gradients_flow(kind, spatial):
    torch.manual_seed(0)
    options, names = KINDS[kind]
    encoder, target = build(kind, partial(encoders.Grid, dim=D, spatial=spatial), **options)
    obs, act, mask = batch()
    z = encoder(obs)
    y = target(obs, z)
    assert target.shape == ((D, 7, 7) if spatial else (D,)) and y.shape == (B, L + 1, *target.shape)
    assert y.requires_grad == (kind in (targets.SIGReg, targets.VICReg))

    losses = target.losses(obs, act, z, y, mask)
    assert list(losses) == names and all(x.shape == (B, L) and x.isfinite().all() for x in losses.values())
    if losses:
        sum(torch.where(mask, x, 0.0).sum() for x in losses.values()).backward()
        reached = any(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
        assert reached == (kind is not targets.Inverse)
    trainable = [p for p in target.parameters() if p.requires_grad]
    assert bool(trainable) == (kind in (targets.Inverse, targets.Reconstruction))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trainable)
    owned = {id(p) for p in target.parameters()}
    assert not owned & {id(p) for p in encoder.parameters()}  # the main encoder is the world model's


def test_batch_losses_are_repeated_so_that_a_masked_mean_gives_them_back():
    for kind in (targets.SIGReg, targets.VICReg):
        encoder, target = build(kind)
        obs, act, mask = batch()
        z = encoder(obs)
        for x in target.losses(obs, act, z, z, mask).values():
            assert x.unique().numel() == 1


def test_frozen_features_stay_as_they_were():
    vit = dict(model_type="vit", hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
               image_size=8, patch_size=4, hidden_dropout_prob=0.5)  # fmt: skip
    features = partial(encoders.Pretrained, backbone=vit, frozen=False, dim=99)
    for options, shape in (({}, VIEW), ({"features": features}, spaces.Box(0, 255, (32, 32, 3), np.uint8))):
        make = partial(encoders.Grid if shape is VIEW else encoders.Conv, dim=D)
        _, target = build(targets.Frozen, make, obs_space=shape, dim=6, **options)
        obs = views(B, L + 1) if shape is VIEW else torch.randint(0, 256, (B, L + 1, 32, 32, 3))
        before, y = {k: v.clone() for k, v in target.state_dict().items()}, target(obs, None)
        target.train()
        assert not any(m.training for m in target.features.modules())
        assert y.shape[-1] == 6 and torch.equal(target(obs, None), y)
        assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items())
        assert not any(p.requires_grad for p in target.parameters())


def test_random_features_are_orthogonal():
    _, target = build(targets.Frozen, dim=16)
    weight = target.features.net[0].weight  # (49 * 21, 16)
    torch.testing.assert_close(weight.T @ weight, 7 * torch.eye(16), atol=1e-4, rtol=0)


def test_ema_by_hand():
    encoder, target = build(targets.EMA, partial(encoders.MLP, dim=1, hidden=()), spaces.Box(-9, 9, (1,)), decay=0.9)
    with torch.no_grad():
        target.slow.net[0].weight.fill_(1.0)
        encoder.net[0].weight.fill_(2.0)
    target.update()
    assert target.slow.net[0].weight.item() == pytest.approx(1.1)  # .9 * 1 + .1 * 2
    target.update()
    assert target.slow.net[0].weight.item() == pytest.approx(1.19)
    assert not target.train().slow.training and encoder.net[0].weight.item() == 2.0

    with pytest.raises(ValueError, match=r"target\.decay=2"):
        targets.EMA(encoder, decay=2.0)
    with pytest.raises(ValueError, match=r"target\.normalise=l1"):
        targets.EMA(encoder, normalise="l1")


@pytest.mark.parametrize("spatial", [False, True])
def test_ema_of_unit_length(spatial):
    encoder, target = build(targets.EMA, partial(encoders.Grid, dim=D, spatial=spatial), normalise="l2")
    obs = views(B, L + 1)
    y = target(obs, encoder(obs))
    lengths = y.norm(dim=2)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))


def test_touched_rows():
    mask = torch.tensor([[False, True, False, False, True, True]])
    assert touched(mask).tolist() == [[False, True, True, False, True, True, True]]


def test_inverse_learns_an_action_that_can_be_seen():
    torch.manual_seed(0)
    space = spaces.Box(-1, 1, (4,))
    _, target = build(targets.Inverse, partial(encoders.MLP, hidden=(32,)), space, dim=D, hidden=32)
    optimiser = torch.optim.Adam(target.parameters(), lr=3e-3)

    def loss():
        act = torch.randint(0, 4, (16, 8))
        seen = torch.eye(4)[act]  # what the row after the action shows
        obs = torch.cat([torch.randn(16, 1, 4), seen], 1)
        mask = torch.ones(16, 8, dtype=torch.bool)
        return target.losses(obs, act, None, None, mask)["inverse"].mean()

    first = loss().item()
    assert first == pytest.approx(log(4), abs=0.3)
    for _ in range(150):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    assert loss().item() < 0.1


@pytest.mark.parametrize(
    "space, act, expected",
    [
        (spaces.Discrete(4, start=3), [[5, 0]], log(4)),
        (spaces.MultiDiscrete([2, 3]), [[[1, 2], [99, 99]]], log(2) + log(3)),
        (spaces.Box(np.array([0.0, -1.0]), np.array([4.0, 1.0])), [[[4.0, 0.0], [0.0, 0.0]]], 0.5),
        (spaces.Box(-np.inf, np.inf, (1,)), [[[3.0], [0.0]]], 9.0),
    ],
)
def test_action_losses_by_hand(space, act, expected):
    head = ActionHead(2, space, 4)
    nn.init.zeros_(head.net[-1].weight)
    nn.init.zeros_(head.net[-1].bias)
    loss = head.loss(torch.randn(1, 2, 2), torch.tensor(act), torch.tensor([[True, False]]))
    assert loss[0].tolist() == pytest.approx([expected, 0.0])


def test_inverse_refuses_other_actions():
    with pytest.raises(ValueError, match="target=inverse with act_space=MultiBinary"):
        ActionHead(2, spaces.MultiBinary(3), 4)


RECONSTRUCTED = {
    "grid": (partial(encoders.Grid, dim=D), VIEW),
    "pixels": (partial(encoders.Conv, dim=D), spaces.Box(0, 255, (36, 44, 3), np.uint8)),
    "tiny": (partial(encoders.Conv, dim=D), spaces.Box(0, 255, (3, 8, 8), np.uint8)),
    "vector": (partial(encoders.MLP, dim=D), spaces.Box(-1, 1, (3,))),
    "state": (partial(encoders.Discrete, dim=D), spaces.Discrete(5, start=1)),
    "dict": (partial(encoders.Dict, dim=D), spaces.Dict({"image": VIEW, "direction": spaces.Discrete(4)})),
}


@pytest.mark.parametrize("name", RECONSTRUCTED)
def test_reconstruction_of_every_kind_of_observation(name):
    torch.manual_seed(0)
    make, space = RECONSTRUCTED[name]
    encoder, target = build(targets.Reconstruction, make, space)
    if name == "dict":
        obs = {"image": views(B, L + 1), "direction": torch.randint(0, 4, (B, L + 1))}
    elif name == "grid":
        obs = views(B, L + 1)
    else:
        obs = torch.as_tensor(np.stack([space.sample() for _ in range(B * (L + 1))]))
        obs = obs.view(B, L + 1, *space.shape)
    mask = torch.ones(B, L, dtype=torch.bool)
    both = nn.ModuleList([encoder, target])
    optimiser = torch.optim.Adam(both.parameters(), lr=3e-3)
    seen = []
    for _ in range(30):
        z = encoder(obs)
        loss = target.losses(obs, None, z, z, mask)["reconstruction"]
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()
        seen.append(float(loss.mean()))
    assert loss.shape == (B, L) and seen[-1] < 0.9 * seen[0]


def test_reconstruction_by_hand():
    encoder, target = build(targets.Reconstruction)
    (decoder,) = target.decoders.values()
    nn.init.zeros_(decoder.net[-1].weight)
    nn.init.zeros_(decoder.net[-1].bias)
    obs, act, mask = batch()
    loss = target.losses(obs, act, encoder(obs), None, mask)["reconstruction"]
    torch.testing.assert_close(loss, torch.full((B, L), log(11) + log(6) + log(4)))


@pytest.mark.parametrize("name", sorted(p.stem for p in (CONFIGS / "target").glob("*.yaml")))
def test_configs_name_every_option(name):
    with initialize_config_dir(str(CONFIGS), version_base=None):
        node = compose(overrides=[f"+target={name}"]).target
    make = instantiate(node)
    known = {"encoder", "make_encoder", "obs_space", "act_space"}
    assert set(make.keywords) == set(inspect.signature(make.func).parameters) - known
    options = dict(make.keywords)
    if name == "pretrained":
        assert options["features"].keywords["dim"] == 64
        options["features"] = encoders.Grid  # no download in a test
    encoder, target = build(make.func, **options)
    obs, act, mask = batch()
    y = target(obs, encoder(obs))
    assert y.shape == (B, L + 1, *target.shape)
    target.losses(obs, act, encoder(obs), y, mask)
    target.update()
